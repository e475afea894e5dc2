"""rov: the perception and autopilot daemon of an underwater rover."""

__version__ = "0.1.0"
