"""coldstart: from start to the first valid answer, on your machines."""

__version__ = "0.1.0"
