"""Batch normalisation over all devices: an exact function, one with little memory traffic, and the module."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from avemo.ops import device_axis, global_batch
from avemo.ops.linear import Dtype, statistics_dtype


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def exact(
    x: Float[Array, "b *places c"],
    scale: Float[Array, "c"],
    bias: Float[Array, "c"],
    epsilon: float,
    weights: Float[Array, "b"] | None = None,
) -> tuple[Float[Array, "b *places c"], Float[Array, "c"], Float[Array, "c"]]:
    """Batch normalisation with the two-pass variance; E[x²] − E[x]² loses digits when the mean is far from 0.

    The gradient reads `x` once for the sums and once for the result. No gradient flows through the returned statistics.

    Args:
      x: float32 or float64.
      scale, bias: applied after normalisation.
      epsilon: added to the variance.
      weights: 0 for rows that pad the batch and do not count; None counts all rows.

    Returns:
      `x` normalised, the mean, and the biased variance.
    """
    return _exact_forward(x, scale, bias, epsilon, weights)[0]


def _exact_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, weights: jax.Array | None
) -> tuple[tuple, tuple]:
    (mean,) = _means((x,), weights)
    (var,) = _means((jnp.square(x - _over_channels(mean, x)),), weights)
    rate = lax.rsqrt(var + epsilon)
    return (apply(x, mean, scale * rate, bias), mean, var), (x, scale, mean, rate, weights)


def _exact_backward(epsilon: float, saved: tuple, changes: tuple) -> tuple:
    x, scale, mean, rate, weights = saved
    return *_gradients(x, scale, mean, rate, weights, changes[0]), None


exact.defvjp(_exact_forward, _exact_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def compact(
    x: Float[Array, "b *places c"],
    scale: Float[Array, "c"],
    bias: Float[Array, "c"],
    shift: Float[Array, "c"],
    epsilon: float,
) -> tuple[Float[Array, "b *places c"], Float[Array, "c"], Float[Array, "c"]]:
    """`exact` for bfloat16 `x`, which is read once for both statistics and once for both gradients.

    Between the passes only `x` itself is kept. The variance is E[(x − shift)²] − E[x − shift]² in float32. Its error
    stays far below the rounding of bfloat16 as long as `shift`, the running mean, is within 100 standard deviations of
    the mean. No gradient flows through the returned statistics. `y` is bfloat16; mean and variance are float32.
    """
    return _compact_forward(x, scale, bias, shift, epsilon)[0]


def _compact_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, shift: jax.Array, epsilon: float
) -> tuple[tuple, tuple]:
    wide = x.astype(jnp.float32)
    centred = wide - _over_channels(shift, x)
    first, second = _means((centred, jnp.square(centred)))
    mean, var = first + shift, jnp.maximum(second - jnp.square(first), 0)
    rate = lax.rsqrt(var + epsilon)
    y = apply(wide, mean, scale * rate, bias).astype(x.dtype)
    return (y, mean, var), (x, scale, mean, rate)


def _compact_backward(epsilon: float, saved: tuple, changes: tuple) -> tuple:
    x, scale, mean, rate = saved
    to_x, *rest = _gradients(x.astype(jnp.float32), scale, mean, rate, None, changes[0].astype(jnp.float32))
    return to_x.astype(x.dtype), *rest, jnp.zeros_like(mean)


compact.defvjp(_compact_forward, _compact_backward)


def _gradients(
    x: jax.Array,
    scale: jax.Array,
    mean: jax.Array,
    rate: jax.Array,
    weights: jax.Array | None,
    change: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradients of `x`, `scale` and `bias`; the latter two are this device's share."""
    unit = (x - _over_channels(mean, x)) * _over_channels(rate, x)
    axes = tuple(range(x.ndim - 1))
    to_bias, to_scale = change.sum(axes), (change * unit).sum(axes)
    # Every row depends on the statistics; only the rows that count are part of them.
    here: jax.Array | int = x.size // x.shape[-1]
    through: jax.Array | float = 1.0
    if weights is not None:
        here, through = _count(x, weights), _over_rows(weights, x)
    totals, count = device_axis.psum((to_bias, to_scale)), device_axis.psum(here)
    first, second = (_over_channels(total / jnp.maximum(count, 1.0), x) for total in totals)
    inner = change - through * (first + unit * second)
    return inner * _over_channels(scale * rate, x), to_scale, to_bias


def apply(
    x: Float[Array, "*b c"], mean: Float[Array, "c"], gain: Float[Array, "c"], bias: Float[Array, "c"]
) -> Float[Array, "*b c"]:
    """Returns (x − mean) · gain + bias."""
    return (x - _over_channels(mean, x)) * _over_channels(gain, x) + _over_channels(bias, x)


def _over_channels(v: jax.Array, x: jax.Array) -> jax.Array:
    return v.reshape((1,) * (x.ndim - 1) + (-1,))


def _means(values: tuple[jax.Array, ...], weights: jax.Array | None = None) -> tuple[jax.Array, ...]:
    """Means over all axes but the last and over all devices; of a padded batch, over the rows that count."""
    if weights is not None:
        x = values[0]
        w = _over_rows(weights, x)
        sums = tuple((v * w).sum(tuple(range(v.ndim - 1))) for v in values), _count(x, weights)
        totals, count = device_axis.psum(sums)
        return tuple(total / jnp.maximum(count, 1.0) for total in totals)
    means = tuple(v.mean(axis=tuple(range(v.ndim - 1))) for v in values)
    return device_axis.pmean(means)


def _over_rows(weights: jax.Array, x: jax.Array) -> jax.Array:
    return weights.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


def _count(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns how many numbers per channel count."""
    return weights.astype(x.dtype).sum() * (x[0].size // x.shape[-1])


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, and over all devices.

    With `train=False` the running statistics are used and kept. `momentum` is the share of the old running
    value that is kept: 0.9 here is 0.1 in PyTorch. The running variance is the biased one (1/n), as in TensorFlow and
    Flax. PyTorch keeps the unbiased one, larger by n/(n−1) with n = batch × height × width over all devices.

    Unlike `nn.BatchNorm` it takes bfloat16 input under strict dtype promotion. In float32 the variance is two-pass
    (`exact`); in bfloat16, where memory traffic limits an accelerator, `compact` is used.
    """

    epsilon: float = 1e-3
    momentum: float = 0.9
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b *places c"], train: bool) -> Float[Array, "b *places c"]:
        """Returns `x` normalised, in `dtype`; in training also updates `mean` and `var` in `batch_stats`."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)

        # At least float32 inside; float64 stays float64.
        inside = statistics_dtype(self.dtype)
        scale, bias = scale.astype(inside), bias.astype(inside)
        if train and not self.is_initializing():  # initialisation reduces nothing
            weights = global_batch.row_weights(x.shape[0])
            if self.dtype == jnp.bfloat16 and weights is None:
                y, mean, var = compact(x, scale, bias, running_mean.value, self.epsilon)
            else:
                y, mean, var = exact(x.astype(inside), scale, bias, self.epsilon, weights)
            for running, new in ((running_mean, mean), (running_var, var)):
                running.value = self.momentum * running.value + (1 - self.momentum) * new.astype(jnp.float32)
        else:
            mean, var = running_mean.value.astype(inside), running_var.value.astype(inside)
            y = apply(x.astype(inside), mean, scale * lax.rsqrt(var + self.epsilon), bias)
        return y.astype(self.dtype)
