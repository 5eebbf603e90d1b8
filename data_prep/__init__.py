"""Turns raw corpora into sharded records. Imports neither JAX nor TensorFlow."""
