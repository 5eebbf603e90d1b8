"""Random weights for any implementation, drawn by NumPy from a seed and the tensor's name.

A golden file therefore stores no weights: the test draws them again.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn


def draw(path: tuple[str, ...], shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Returns the float32 tensor for a path of the Flax tree; kernels are [h, w, I, O] or [I, O]."""
    rng = np.random.default_rng([seed, zlib.crc32("/".join(path).encode())])
    leaf = path[-1]
    if leaf == "kernel":
        values = rng.standard_normal(shape, np.float32) * math.sqrt(2 / math.prod(shape[:-1]))
    elif leaf in ("scale", "var"):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = 0.1 * rng.standard_normal(shape)
    return values.astype(np.float32)


def variables(module: nn.Module, *inputs: Any, seed: int) -> dict[str, Any]:
    """Returns random {"params", "batch_stats"} for `module(*inputs, train=False)`; compiles nothing."""
    shapes = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x, train=False), *inputs)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: draw(tuple(str(key.key) for key in path), leaf.shape, seed), dict(shapes)
    )


def torch_state(names: Mapping[str, Any], place: Callable[[str, np.ndarray], Any], seed: int) -> dict[str, np.ndarray]:
    """Returns the weights of `variables` in PyTorch's names and layouts.

    Args:
      names: a state dict, for its names and shapes.
      place: maps a name and value to our path and value, as the converter does.
      seed: as for `variables`.
    """
    state = {}
    for name, tensor in names.items():
        target = place(name, np.zeros(tuple(tensor.shape), np.float32))
        if target is None:
            continue
        path, ours = target
        value = draw(path, ours.shape, seed)
        state[name] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    return state
