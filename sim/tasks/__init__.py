"""Steering tasks: a batched sea without pictures, four tasks in it, and the controllers that others are compared with."""
