"""The way to the vehicle: MAVLink 2."""
