"""Recorded dives: MCAP files that survive a power cut, and their care."""
