"""Worlds that several tests use."""

FLOWING = """
about = "Open water with a current."
[water]
type = "IB"
[current]
speed = 0.3
towards_deg = 60.0
[start]
depth = 3.0
heading_deg = 20.0
[ground]
depth = 8.0
[[course]]
mode = "hold"
seconds = 30.0
"""
"""A current of 0.3 m/s, in which the vehicle holds at 3 m depth for 30 s."""
