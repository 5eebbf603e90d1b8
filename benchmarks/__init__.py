"""Measurements: speed, and parity with implementations that we did not write."""
