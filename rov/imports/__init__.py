"""Dives that others recorded: an autopilot's log and a video become one of ours."""
