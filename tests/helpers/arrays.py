"""Random arrays without compilation, and a function with its gradients as one program."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def image(*shape: int, seed: int = 0) -> jax.Array:
    """Standard normal numbers, float32."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def with_gradients(f: Callable, above: Any, *inputs: Any) -> tuple[Any, tuple]:
    """Returns `f(*inputs)` and its gradients for the cotangent `above`."""
    value, pull = jax.vjp(f, *inputs)
    return value, pull(above)
