"""Other people's programs on the same files; they run in a separate environment (requirements-peers*.txt)."""
