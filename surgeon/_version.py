"""The version of surgeon, which records and results name."""

__version__ = "0.1.0"
