"""Raw corpora in, sharded records out. Imports neither JAX nor TensorFlow."""
