"""The published sizes. A comment gives each value's source: P (paper), S (second hand), A (assumed)."""
