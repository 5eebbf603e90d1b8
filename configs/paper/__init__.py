"""The published sizes. Each value says in a comment how sure it is: P (paper), S (second hand), A (assumed)."""
