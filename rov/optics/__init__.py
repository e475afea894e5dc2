"""What is known of the lens and the water in front of it: calibrated cameras, white balance by depth."""
