"""Real results on real data, beside the tools people use today: `python -m benchmarks.results`."""
