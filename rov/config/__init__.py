"""The configuration: its schema, the saved file while the daemon runs, and the values in force at each time."""
