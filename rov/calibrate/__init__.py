"""What is measured of this vehicle: its camera, its port, its thrusters, the colour of its water."""
