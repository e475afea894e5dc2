"""Worlds that several tests sail in."""

FLOWING = """
about = "Open water that flows."
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
"""At rest 3 m deep in 0.3 m/s, to be held for 30 s."""
