"""From setpoints to thruster commands: commander, pilot, control loops, allocation, guard. Never imports torch."""
