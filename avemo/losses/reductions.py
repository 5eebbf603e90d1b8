"""Sums and means over a batch that may be spread over devices."""

import math

import jax
import jax.numpy as jnp


def psum(x: jax.Array, axis_name: str | None) -> jax.Array:
    """Sums over the device axis; the identity where there is none."""
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def total_and_count(values: jax.Array, weights: jax.Array | None, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """Returns the global Σ w·x and Σ w, float32 scalars; an entry of weight 0 is not read (NaN there is harmless)."""
    values = values.astype(jnp.float32)
    weights = jnp.ones(values.shape, jnp.float32) if weights is None else weights.astype(jnp.float32)
    weighted = jnp.where(weights != 0, values, 0.0) * weights
    return psum(weighted.sum(), axis_name), psum(weights.sum(), axis_name)


def weighted_mean(values: jax.Array, weights: jax.Array | None = None, axis_name: str | None = None) -> jax.Array:
    """Mean of `values` under `weights` (bool or float, the same shape) over all devices; 0 if they sum to 0."""
    total, count = total_and_count(values, weights, axis_name)
    return safe_divide(total, count)


def safe_divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """numerator / denominator, and 0 with a zero gradient where the denominator is not positive."""
    positive = denominator > 0
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1.0), 0.0)


def keep(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Float32 `x`, 0 where `mask` (over x's leading axes, bool or weights) is, so that NaN cannot reach a gradient."""
    mask = mask.astype(bool).reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    return jnp.where(mask, x.astype(jnp.float32), 0.0)


_LANES = 64  # at most so many neighbouring frames are summed side by side


def total_over(value: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Returns the sum over `axes`, kept with length 1.

    Over time (axis 1), XLA:CPU adds the few numbers of a frame one by one. There neighbouring frames are summed side by
    side first, which fills its vectors (7 times faster for 2 numbers a frame); elsewhere it is a plain sum.
    """
    if 1 not in axes or value.ndim < 3:
        return value.sum(axes, keepdims=True)
    frames = value.shape[1]
    lanes = max(d for d in range(1, _LANES + 1) if frames % d == 0)

    def side_by_side(value: jax.Array) -> jax.Array:
        rows, rest = value.shape[0], value.shape[2:]
        blocks = value.reshape(rows, frames // lanes, lanes * math.prod(rest)).sum(1)
        return blocks.reshape(rows, lanes, *rest).sum(axes, keepdims=True)

    def plain(value: jax.Array) -> jax.Array:
        return value.sum(axes, keepdims=True)

    return jax.lax.platform_dependent(value, cpu=side_by_side, default=plain)
