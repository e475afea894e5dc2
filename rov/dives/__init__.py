"""Recorded dives: writing, reading, repairing, cutting and deleting MCAP files that survive a power cut."""
