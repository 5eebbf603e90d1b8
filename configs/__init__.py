"""Experiments: one file is one experiment; see `avemo.configuration`."""
