"""Runs the stages on recorded time: replay, comparison, report, bench."""
