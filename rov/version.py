"""The version of this program; `rov.__version__` is the same."""

__version__ = "0.2.0"
