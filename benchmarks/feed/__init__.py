"""Whether the input keeps the device busy: `python -m benchmarks.feed`."""
