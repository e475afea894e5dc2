"""What every process of the daemon stands on, and how the supervisor starts, watches and ends them."""
