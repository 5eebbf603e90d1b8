"""Programs that are not ours on the same files: run in an environment of their own (requirements-peers*.txt)."""
