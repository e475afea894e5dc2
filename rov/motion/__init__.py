"""From a wish for motion to thruster commands that may leave: modes, loops, allocation, guard. Never imports torch."""
