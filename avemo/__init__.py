"""avemo: audio-visual emotion recognition in JAX/Flax (after arXiv 2103.09154).

Importing this package imports no accelerator code: `data_prep` uses its errors and registries without JAX.
"""

__version__ = "0.1.0"
