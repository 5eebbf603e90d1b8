"""Our speed beside PyTorch's on this machine's CPU: `python -m benchmarks.speed`."""
