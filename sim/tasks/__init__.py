"""Steering tasks: a batched sea without pictures, four tasks in it, and controllers to compare with."""
