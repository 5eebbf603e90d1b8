"""The version that runs, reports and releases record."""

__version__ = "0.1.0"
