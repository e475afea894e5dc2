"""From tracks to a setpoint: observes the target, and the visual servo steers towards it."""
