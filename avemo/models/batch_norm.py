"""Batch normalisation by the statistics of the batch, as two functions: exact, and with little memory traffic."""

import functools

import jax
import jax.numpy as jnp
from jax import lax


def exact(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    axis_name: str | None,
    weights: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch normalisation with the two-pass variance: E[x²] − E[x]² loses the digits where the mean is far from 0.

    Args:
      x: [..., C] float32 or float64.
      scale, bias: [C].
      epsilon: added to the variance.
      axis_name: the device axis over which statistics are synchronised; None: over this device's batch.
      weights: [B], 0 for rows that pad the batch and do not count; None: all count.

    Returns:
      `x` normalised, mean [C], biased variance [C].
    """
    (mean,) = _means((x,), axis_name, weights)
    (var,) = _means((jnp.square(x - _over_channels(mean, x)),), axis_name, weights)
    return apply(x, mean, scale * lax.rsqrt(var + epsilon), bias), mean, var


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def compact(
    x: jax.Array, scale: jax.Array, bias: jax.Array, shift: jax.Array, epsilon: float, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As `exact`, for bfloat16 `x`, which it reads once for both statistics and once for both gradients.

    Between the passes only `x` itself is kept. The variance is E[(x − shift)²] − E[x − shift]² in float32, whose error
    stays far below bfloat16's own rounding while `shift` [C], the running mean, is within 100 standard deviations of
    the mean. No gradient flows through the returned statistics. Returns `y` in bfloat16, mean and variance in float32.
    """
    return _compact_forward(x, scale, bias, shift, epsilon, axis_name)[0]


def _compact_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, shift: jax.Array, epsilon: float, axis_name: str | None
) -> tuple[tuple, tuple]:
    wide = x.astype(jnp.float32)
    centred = wide - _over_channels(shift, x)
    first, second = _means((centred, jnp.square(centred)), axis_name)
    mean, var = first + shift, jnp.maximum(second - jnp.square(first), 0)
    rate = lax.rsqrt(var + epsilon)
    y = apply(wide, mean, scale * rate, bias).astype(x.dtype)
    return (y, mean, var), (x, scale, mean, rate)


def _compact_backward(epsilon: float, axis_name: str | None, saved: tuple, changes: tuple) -> tuple:
    x, scale, mean, rate = saved
    change = changes[0].astype(jnp.float32)
    unit = (x.astype(jnp.float32) - _over_channels(mean, x)) * _over_channels(rate, x)
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    d_bias, d_scale = change.sum(axes), (change * unit).sum(axes)
    first, second = (d_bias / count, d_scale / count)
    if axis_name is not None:
        first, second = lax.pmean((first, second), axis_name)
    inner = change - _over_channels(first, x) - unit * _over_channels(second, x)
    return (inner * _over_channels(scale * rate, x)).astype(x.dtype), d_scale, d_bias, jnp.zeros_like(mean)


compact.defvjp(_compact_forward, _compact_backward)


def apply(x: jax.Array, mean: jax.Array, gain: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns (x − mean) · gain + bias for `x` [..., C] and the others [C]."""
    return (x - _over_channels(mean, x)) * _over_channels(gain, x) + _over_channels(bias, x)


def _over_channels(v: jax.Array, x: jax.Array) -> jax.Array:
    return v.reshape((1,) * (x.ndim - 1) + (-1,))


def _means(
    values: tuple[jax.Array, ...], axis_name: str | None, weights: jax.Array | None = None
) -> tuple[jax.Array, ...]:
    """Means over all axes but the last, and over the devices; of a padded batch, over the rows that count."""
    if weights is not None:
        x = values[0]
        w = weights.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        sums = tuple((v * w).sum(tuple(range(v.ndim - 1))) for v in values), w.sum() * (x[0].size // x.shape[-1])
        totals, count = sums if axis_name is None else lax.psum(sums, axis_name)
        return tuple(total / jnp.maximum(count, 1.0) for total in totals)
    means = tuple(v.mean(axis=tuple(range(v.ndim - 1))) for v in values)
    return means if axis_name is None else lax.pmean(means, axis_name)
