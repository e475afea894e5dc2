"""What the vehicle's camera sees: analytic things in water, cast ray by ray in torch, many cameras at once."""
