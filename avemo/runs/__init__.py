"""Run folders: checkpoints, logs, results."""
