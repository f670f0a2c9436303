"""Learn a simulator on small tiles; run it on a domain of any size, on any number of ranks."""

__version__ = "0.1.0"
