"""The computer on board: `rov doctor`, the check list before a dive, a Jetson's instruments, processor placement."""
