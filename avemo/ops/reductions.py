"""Sums and means over a batch that may be spread over devices, and sums over time that XLA:CPU runs fast."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, Shaped

from avemo.ops import device_axis


def weighted_sums(
    values: Num[Array, "*b"], weights: Shaped[Array, "*b"] | None = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns Σ w·x and Σ w of this device, float32 scalars; entries of weight 0, NaN included, are not read."""
    values = values.astype(jnp.float32)
    weights = jnp.ones(values.shape, jnp.float32) if weights is None else weights.astype(jnp.float32)
    weighted = jnp.where(weights != 0, values, 0.0) * weights
    return weighted.sum(), weights.sum()


def global_sums(
    values: Num[Array, "*b"], weights: Shaped[Array, "*b"] | None = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`weighted_sums` over all devices."""
    total, count = weighted_sums(values, weights)
    return device_axis.psum(total), device_axis.psum(count)


def weighted_mean(values: Num[Array, "*b"], weights: Shaped[Array, "*b"] | None = None) -> Float[Array, ""]:
    """Returns the mean of `values` under `weights` (bool or float) over all devices; 0 if the weights sum to 0."""
    return safe_divide(*global_sums(values, weights))


def safe_divide(numerator: Float[Array, "*b"], denominator: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Returns numerator / denominator; 0, with a zero gradient, where the denominator is not positive."""
    positive = denominator > 0
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1.0), 0.0)


def keep(x: Num[Array, "*b_rest"], mask: Shaped[Array, "*b"]) -> Float[Array, "*b_rest"]:
    """Returns float32 `x`, 0 where `mask` (bool or weights, over the leading axes) is 0: no NaN reaches a gradient."""
    mask = mask.astype(bool).reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    return jnp.where(mask, x.astype(jnp.float32), 0.0)


_BLOCKS = 15  # a joint reduction adds at most this many numbers, see `totals`


def totals(values: tuple[jax.Array, ...], axes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Returns the sum over `axes` of each of `values`, arrays of the same shape; summed axes keep length 1.

    XLA:CPU reads its input once for each sum and, over time (axis 1), adds the few numbers of a frame one by one. There
    the arrays are summed by joint reductions over a few long blocks of frames, a loop that it unrolls and vectorises
    (docs/speed.md). Elsewhere these are plain sums, which compilers join by themselves.
    """
    if 1 not in axes or values[0].ndim < 3:
        return _plain(values, axes)
    return _totals(values, axes, values[0].shape)


# A joint reduction has no derivative in JAX. The derivative of a sum is a broadcast.
@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _totals(values: tuple[jax.Array, ...], axes: tuple[int, ...], shape: tuple[int, ...]) -> tuple[jax.Array, ...]:
    by_blocks, plain = (functools.partial(f, axes=axes) for f in (_by_blocks, _plain))
    return jax.lax.platform_dependent(values, cpu=by_blocks, default=plain)


def _totals_backward(axes: tuple[int, ...], shape: tuple[int, ...], _: None, change: tuple[jax.Array, ...]) -> tuple:
    return (tuple(jnp.broadcast_to(c, shape) for c in change),)


_totals.defvjp(lambda values, axes, shape: (_totals(values, axes, shape), None), _totals_backward)


def _plain(values: tuple[jax.Array, ...], axes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    return tuple(value.sum(axes, keepdims=True) for value in values)


def _by_blocks(values: tuple[jax.Array, ...], axes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    rows, frames, *rest = values[0].shape
    width = math.prod(rest)
    zeros = tuple(jnp.zeros((), value.dtype) for value in values)

    def add(a: tuple, b: tuple) -> tuple:
        return tuple(x + y for x, y in zip(a, b, strict=True))

    while frames > 1:
        blocks = max(d for d in range(1, _BLOCKS + 1) if frames % d == 0)
        blocks = frames if blocks == 1 else blocks
        frames //= blocks
        values = tuple(value.reshape(rows, blocks, frames * width) for value in values)
        values = tuple(jax.lax.reduce(values, zeros, add, (1,)))
    return _plain(tuple(value.reshape(rows, 1, *rest) for value in values), axes)
