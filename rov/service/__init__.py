"""The common base of the daemon's processes, and how the supervisor starts, watches and ends them."""
