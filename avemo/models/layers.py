"""The few layers every network here is made of: convolution, convolution + BatchNorm, pooling, input scaling.

Parameter and statistic names are Flax's own (`kernel`, `bias`, `scale`; `mean`, `var`), so converted weights, freezing
patterns and Flax tools fit. Images are NHWC. Parameters and statistics are float32 whatever the compute `dtype`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from avemo import rows

Dtype = Any
Padding = str | Sequence[tuple[int, int]]

he_normal = nn.initializers.he_normal()


def scale_width(channels: int, width: float, divisor: int = 8) -> int:
    """Returns `channels` scaled by `width` to a multiple of `divisor`; unchanged at width 1.

    The published networks and their small variants differ in this number only. The rounding is MobileNet's
    (1704.04861): never less than 90 % of the exact value, never less than one `divisor`.
    """
    if width == 1.0:
        return channels
    exact = channels * width
    rounded = max(divisor, int(exact + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * exact else rounded


def scale_images(images: jax.Array, mean: Sequence[float], std: Sequence[float], dtype: Dtype) -> jax.Array:
    """Returns (images − mean) / std in `dtype`, computed in float32.

    Args:
      images: [B, H, W, 3] uint8 or float, RGB, 0..255.
      mean: one value, or one a channel, on the 0..255 scale.
      std: likewise.
      dtype: of the result.
    """
    shape = (1,) * (images.ndim - 1) + (-1,)
    mean, std = (jnp.asarray(v, jnp.float32).reshape(shape) for v in (mean, std))
    return ((images.astype(jnp.float32) - mean) / std).astype(dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
    """Returns the maximum over square windows of `x` [B, H, W, C]; `padding` on each side never wins.

    It is written as a maximum of shifted slices: several times faster on XLA:CPU than `lax.reduce_window` and its
    gradient, with the same result. Of equal maxima the first gets the gradient, as in PyTorch.
    """
    return functools.reduce(jnp.maximum, _pool_shifts(x, window, stride, padding))


@max_pool.defjvp
def _max_pool_jvp(window: int, stride: int, padding: int, primals: tuple, tangents: tuple) -> tuple:
    # The derivative of `jnp.maximum` asks which operand equals the result. Where XLA computes `x` again for the
    # backward pass, fused and so rounded otherwise, none does and the gradient is lost. The place is kept instead.
    best, *others = _pool_shifts(primals[0], window, stride, padding)
    place = jnp.zeros(best.shape, jnp.int8)
    for i, other in enumerate(others, start=1):
        place = jnp.where(other > best, jnp.int8(i), place)
        best = jnp.maximum(best, other)
    changes = _pool_shifts(tangents[0], window, stride, padding, outside=0.0)
    return best, sum(jnp.where(place == i, change, 0) for i, change in enumerate(changes))


def _pool_shifts(x: jax.Array, window: int, stride: int, padding: int, outside: float = -jnp.inf) -> list[jax.Array]:
    edge = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x = jnp.pad(x, edge, constant_values=jnp.array(outside, x.dtype)) if padding else x
    return _shifts(x, (window, window), (stride, stride))


def average_pool(x: jax.Array, window: int) -> jax.Array:
    """Returns the mean over disjoint square windows of `x` [B, H, W, C]; an odd row or column at the end is dropped."""
    return sum(_shifts(x, (window, window), (window, window))) / window**2


def _shifts(x: jax.Array, window: tuple[int, int], strides: tuple[int, int]) -> list[jax.Array]:
    """Returns, for each place in the window in row-major order, the strided slice of `x` [B, H, W, C] it sees."""
    spans = [(size - w) // s * s + 1 for size, w, s in zip(x.shape[1:3], window, strides, strict=True)]
    return [
        x[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]


def statistics_dtype(dtype: Dtype) -> Dtype:
    """Returns the dtype for sums and statistics of `dtype`: float32 at least."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


class Conv(nn.Module):
    """2-D convolution [B, H, W, I] -> [B, H', W', features]; parameters as in `nn.Conv`: `kernel` [h, w, I/groups, O].

    `feature_group_count` is 1, or the number of channels (depthwise). A 1×1 kernel runs as a matrix product over
    channels and a depthwise one as a sum of shifted products, accumulated in float32: the same numbers, but on XLA:CPU
    2 times and 20 to 60 times faster than its convolution.
    """

    features: int
    kernel_size: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "SAME"
    feature_group_count: int = 1
    use_bias: bool = True
    dtype: Dtype = jnp.float32
    kernel_init: Callable = he_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the convolution of `x`, without activation."""
        shape = (*self.kernel_size, x.shape[-1] // self.feature_group_count, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.feature_group_count > 1:
            y = self._depthwise(x, kernel)
        elif self.kernel_size == (1, 1):
            x = x[:, :: self.strides[0], :: self.strides[1]]
            y = lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))
        else:
            layout = ("NHWC", "HWIO", "NHWC")
            y = lax.conv_general_dilated(x, kernel, self.strides, self.padding, dimension_numbers=layout)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
            y = y + bias.reshape(1, 1, 1, -1)
        return y

    def _depthwise(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        if not self.feature_group_count == x.shape[-1] == self.features:
            raise ValueError(f"grouped convolution is depthwise only, got {self.feature_group_count} groups")
        padding = self.padding
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(x.shape[1:3], self.kernel_size, self.strides, padding)
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        inside = statistics_dtype(self.dtype)
        taps = kernel.astype(inside).reshape(-1, 1, 1, 1, self.features)
        shifts = _shifts(x, self.kernel_size, self.strides)
        return sum(shift.astype(inside) * tap for shift, tap in zip(shifts, taps, strict=True)).astype(self.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, synchronised over `axis_name` when it is given.

    With `train=False` the running statistics are used and left alone. `momentum` is the share of the old running
    value that is kept: 0.9 here is 0.1 in PyTorch. The running variance is the biased one (1/n) as in TensorFlow and
    Flax; PyTorch keeps the unbiased one, larger by n/(n−1) with n = batch × height × width over all devices.

    Unlike `nn.BatchNorm` it takes bfloat16 input under strict dtype promotion, and its variance is always the two-pass
    one: E[x²] − E[x]² loses the digits where the mean is far from 0.
    """

    epsilon: float = 1e-3
    momentum: float = 0.9
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns `x` normalised, in `dtype`; in training also updates `mean` and `var` in `batch_stats`."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)

        def over_channels(v: jax.Array) -> jax.Array:
            return v.reshape((1,) * (x.ndim - 1) + (channels,))

        weights = rows.weights(len(x))

        def batch_mean(v: jax.Array) -> jax.Array:
            synchronised = self.axis_name is not None and not self.is_initializing()
            if weights is None:
                v = v.mean(axis=tuple(range(v.ndim - 1)))
                return lax.pmean(v, self.axis_name) if synchronised else v
            # A padded batch: the mean is over its real rows.
            w = weights.astype(v.dtype).reshape(-1, *(1,) * (v.ndim - 1))
            sums = (v * w).sum(tuple(range(v.ndim - 1))), w.sum() * (v[0].size // channels)
            total, count = lax.psum(sums, self.axis_name) if synchronised else sums
            return total / jnp.maximum(count, 1.0)

        # At least float32 inside, whatever comes in; float64 stays float64.
        inside = statistics_dtype(self.dtype)
        x, scale, bias = x.astype(inside), scale.astype(inside), bias.astype(inside)
        if train:
            mean = batch_mean(x)
            var = batch_mean(jnp.square(x - over_channels(mean)))
            if not self.is_initializing():
                for running, new in ((running_mean, mean), (running_var, var)):
                    running.value = self.momentum * running.value + (1 - self.momentum) * new.astype(jnp.float32)
        else:
            mean, var = running_mean.value.astype(inside), running_var.value.astype(inside)
        gain = scale * lax.rsqrt(var + self.epsilon)
        return ((x - over_channels(mean)) * over_channels(gain) + over_channels(bias)).astype(self.dtype)


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, activation: `conv/kernel`, `bn/{scale,bias}`; the unit most trunks are built from."""

    features: int
    kernel_size: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "SAME"
    depthwise: bool = False
    use_bias: bool = False
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    epsilon: float = 1e-3
    momentum: float = 0.9
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns activation(bn(conv(x))), [B, H', W', features]."""
        x = Conv(
            self.features,
            self.kernel_size,
            self.strides,
            self.padding,
            x.shape[-1] if self.depthwise else 1,
            self.use_bias,
            self.dtype,
            name="conv",
        )(x)
        x = BatchNorm(self.epsilon, self.momentum, self.axis_name, self.dtype, name="bn")(x, train)
        return x if self.activation is None else self.activation(x)


def l2_normalise(x: jax.Array, epsilon: float = 1e-12) -> jax.Array:
    """Returns `x` [..., D] over its Euclidean norm; the gradient at 0 is finite, as `epsilon` is inside the root."""
    return x * lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + epsilon)
