"""A file system of Earth-observation training data."""

__version__ = "0.1.0"
