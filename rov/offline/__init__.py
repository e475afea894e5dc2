"""Every stage on recorded time: replay, comparison, report, bench."""
