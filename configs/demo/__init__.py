"""The demo's experiments: the paper's configs with smaller numbers, for two CPU cores (docs/reproduce.md)."""
