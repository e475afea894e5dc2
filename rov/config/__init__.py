"""The configuration: its schema, the saved file while the daemon runs, and what holds when."""
