"""Pooling over square windows of pictures.

XLA:CPU runs `lax.reduce_window` and its gradient slowly, so there a pool is a maximum or sum of shifted slices, with
the same result. Accelerators have a dedicated operation.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from avemo.ops.depthwise import shifts
from avemo.ops.linear import statistics_dtype


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: Float[Array, "b h w c"], window: int, stride: int, padding: int = 0) -> Float[Array, "b h2 w2 c"]:
    """Returns the maximum over square windows; `padding` on each side never wins.

    On CPU it is a maximum of shifted slices, several times faster there than `lax.reduce_window` and its gradient.
    Elsewhere it is `lax.reduce_window`, whose gradient is one operation on a TPU; the gradient of the slices would
    write one array of the input's size per slice. Of equal maxima the first gets the gradient, as in PyTorch.
    """
    return _max_pool_forward(x, window, stride, padding)[0]


def _max_pool_forward(x: jax.Array, window: int, stride: int, padding: int) -> tuple[jax.Array, tuple]:
    def shifted(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The derivative of `jnp.maximum` asks which operand equals the result. If XLA recomputes `x` for the backward
        # pass in another fusion, it rounds differently, no operand is equal, and the gradient is lost. So the place of
        # the maximum is kept instead.
        best, *others = _shifts(x, window, stride, padding)
        place = jnp.zeros(best.shape, jnp.int8)
        for i, other in enumerate(others, start=1):
            place = jnp.where(other > best, jnp.int8(i), place)
            best = jnp.maximum(best, other)
        return best, place

    def windowed(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        best = window_max(x, window, stride, padding)
        return best, jnp.zeros(best.shape, jnp.int8)  # unused: `x` gives the position

    best, place = lax.platform_dependent(x, cpu=shifted, default=windowed)
    return best, (x, place)


def _max_pool_backward(window: int, stride: int, padding: int, saved: tuple, change: jax.Array) -> tuple[jax.Array]:
    def shifted(x: jax.Array, place: jax.Array, change: jax.Array) -> jax.Array:
        zeros = jnp.zeros_like(x)
        _, transpose = jax.vjp(lambda x: _shifts(x, window, stride, padding, outside=0.0), zeros)
        return transpose([jnp.where(place == i, change, 0) for i in range(window**2)])[0]

    def windowed(x: jax.Array, place: jax.Array, change: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: window_max(x, window, stride, padding), x)[1](change)[0]

    return (lax.platform_dependent(*saved, change, cpu=shifted, default=windowed),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def window_max(x: Float[Array, "b h w c"], window: int, stride: int, padding: int = 0) -> Float[Array, "b h2 w2 c"]:
    """`max_pool` as accelerators run it, by `lax.reduce_window`."""
    edge = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    lowest = np.array(-np.inf, x.dtype)  # a constant, by which JAX recognises the maximum and knows its gradient
    return lax.reduce_window(x, lowest, lax.max, (1, window, window, 1), (1, stride, stride, 1), edge)


def _shifts(x: jax.Array, window: int, stride: int, padding: int, outside: float = -jnp.inf) -> list[jax.Array]:
    edge = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x = jnp.pad(x, edge, constant_values=jnp.array(outside, x.dtype)) if padding else x
    return shifts(x, (window, window), (stride, stride))


def average_pool(x: Float[Array, "b h w c"], window: int) -> Float[Array, "b h2 w2 c"]:
    """Returns the mean over disjoint square windows; an odd row or column at the end is dropped."""
    inside = statistics_dtype(x.dtype)
    total: jax.Array = sum(shifts(x.astype(inside), (window, window), (window, window)))  # type: ignore[assignment]
    return (total / window**2).astype(x.dtype)
