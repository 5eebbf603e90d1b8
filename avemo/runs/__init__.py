"""Run folders: what training writes, and what every other command reads."""
