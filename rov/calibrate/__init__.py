"""Calibration of one vehicle: its camera, its port, its thrusters, the colour of its water."""
