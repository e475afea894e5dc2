"""Evaluation of steering: episodes of a task by the policy and by controllers to compare with, and what they cost."""
