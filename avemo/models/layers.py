"""The few layers every network here is made of: convolution, convolution + BatchNorm, pooling, input scaling.

Parameter and statistic names are Flax's own (`kernel`, `bias`, `scale`; `mean`, `var`), so converted weights, freezing
patterns and Flax tools fit. Images are NHWC. Parameters and statistics are float32 whatever the compute `dtype`.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from avemo.ops import batch_norm, global_batch
from avemo.ops.depthwise import convolve_depthwise, shifts
from avemo.ops.linear import Dtype, add_bias, statistics_dtype
from avemo.ops.pointwise import convolve_pointwise
from avemo.ops.spatial import Edges, convolve_spatial

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


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
    """Returns the maximum over square windows of `x` [B, H, W, C]; `padding` on each side never wins.

    On CPU it is a maximum of shifted slices: several times faster there than `lax.reduce_window` and its gradient, with
    the same result. Elsewhere it is `lax.reduce_window`, whose gradient is one operation on a TPU; that of the slices
    writes an array of the input's size for each of them. Of equal maxima the first gets the gradient, as in PyTorch.
    """
    return _max_pool_forward(x, window, stride, padding)[0]


def _max_pool_forward(x: jax.Array, window: int, stride: int, padding: int) -> tuple[jax.Array, tuple]:
    def shifted(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The derivative of `jnp.maximum` asks which operand equals the result. Where XLA computes `x` again for the
        # backward pass, fused and so rounded otherwise, none does and the gradient is lost. The place is kept instead.
        best, *others = _pool_shifts(x, window, stride, padding)
        place = jnp.zeros(best.shape, jnp.int8)
        for i, other in enumerate(others, start=1):
            place = jnp.where(other > best, jnp.int8(i), place)
            best = jnp.maximum(best, other)
        return best, place

    def windowed(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        best = window_max(x, window, stride, padding)
        return best, jnp.zeros(best.shape, jnp.int8)  # unused: `x` tells the place

    best, place = lax.platform_dependent(x, cpu=shifted, default=windowed)
    return best, (x, place)


def _max_pool_backward(window: int, stride: int, padding: int, saved: tuple, change: jax.Array) -> tuple[jax.Array]:
    def shifted(x: jax.Array, place: jax.Array, change: jax.Array) -> jax.Array:
        zeros = jnp.zeros_like(x)
        _, transpose = jax.vjp(lambda x: _pool_shifts(x, window, stride, padding, outside=0.0), zeros)
        return transpose([jnp.where(place == i, change, 0) for i in range(window**2)])[0]

    def windowed(x: jax.Array, place: jax.Array, change: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: window_max(x, window, stride, padding), x)[1](change)[0]

    return (lax.platform_dependent(*saved, change, cpu=shifted, default=windowed),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def window_max(x: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
    """`max_pool` as accelerators run it, by `lax.reduce_window`."""
    edge = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    lowest = np.array(-np.inf, x.dtype)  # a constant: by it JAX knows the maximum, whose gradient it has
    return lax.reduce_window(x, lowest, lax.max, (1, window, window, 1), (1, stride, stride, 1), edge)


def _pool_shifts(x: jax.Array, window: int, stride: int, padding: int, outside: float = -jnp.inf) -> list[jax.Array]:
    edge = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x = jnp.pad(x, edge, constant_values=jnp.array(outside, x.dtype)) if padding else x
    return shifts(x, (window, window), (stride, stride))


def average_pool(x: jax.Array, window: int) -> jax.Array:
    """Returns the mean over disjoint square windows of `x` [B, H, W, C]; an odd row or column at the end is dropped."""
    inside = statistics_dtype(x.dtype)
    return (sum(shifts(x.astype(inside), (window, window), (window, window))) / window**2).astype(x.dtype)


class Conv(nn.Module):
    """2-D convolution [B, H, W, I] -> [B, H', W', features]; parameters as in `nn.Conv`: `kernel` [h, w, I/groups, O].

    `feature_group_count` is 1, or the number of channels (depthwise). A 1×1 kernel runs as a matrix product over
    channels, twice as fast on XLA:CPU as its convolution with the same numbers; a depthwise one by `depthwise`.
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
            y = convolve_pointwise(x, kernel[0, 0])
        else:
            y = convolve_spatial(x, kernel, tuple(self.strides), self._edges(x))
        if not self.use_bias:
            return y
        return add_bias(y, self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32))

    def _depthwise(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        if not self.feature_group_count == x.shape[-1] == self.features:
            raise ValueError(f"grouped convolution is depthwise only, got {self.feature_group_count} groups")
        inside = statistics_dtype(self.dtype)
        y = convolve_depthwise(x.astype(inside), kernel.astype(inside), tuple(self.strides), self._edges(x))
        return y.astype(self.dtype)

    def _edges(self, x: jax.Array) -> Edges:
        padding = self.padding
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(x.shape[1:3], self.kernel_size, self.strides, padding)
        return tuple((low, high) for low, high in padding)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, and over all devices.

    With `train=False` the running statistics are used and left alone. `momentum` is the share of the old running
    value that is kept: 0.9 here is 0.1 in PyTorch. The running variance is the biased one (1/n) as in TensorFlow and
    Flax; PyTorch keeps the unbiased one, larger by n/(n−1) with n = batch × height × width over all devices.

    Unlike `nn.BatchNorm` it takes bfloat16 input under strict dtype promotion. In float32 its variance is the two-pass
    one (`batch_norm.exact`); in bfloat16, where memory traffic bounds an accelerator, see `batch_norm.compact`.
    """

    epsilon: float = 1e-3
    momentum: float = 0.9
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns `x` normalised, in `dtype`; in training also updates `mean` and `var` in `batch_stats`."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)

        # At least float32 inside, whatever comes in; float64 stays float64.
        inside = statistics_dtype(self.dtype)
        scale, bias = scale.astype(inside), bias.astype(inside)
        if train and not self.is_initializing():  # there is no batch to learn from yet: no reduction, no statistics
            weights = global_batch.weights(x.shape[0])
            if self.dtype == jnp.bfloat16 and weights is None:
                y, mean, var = batch_norm.compact(x, scale, bias, running_mean.value, self.epsilon)
            else:
                y, mean, var = batch_norm.exact(x.astype(inside), scale, bias, self.epsilon, weights)
            for running, new in ((running_mean, mean), (running_var, var)):
                running.value = self.momentum * running.value + (1 - self.momentum) * new.astype(jnp.float32)
        else:
            mean, var = running_mean.value.astype(inside), running_var.value.astype(inside)
            y = batch_norm.apply(x.astype(inside), mean, scale * lax.rsqrt(var + self.epsilon), bias)
        return y.astype(self.dtype)


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
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, convolved: bool = False) -> jax.Array:
        """Returns activation(bn(conv(x))), [B, H', W', features]; with `convolved`, `x` is conv(x) already."""
        if not convolved:
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
        x = BatchNorm(self.epsilon, self.momentum, self.dtype, name="bn")(x, train)
        return x if self.activation is None else self.activation(x)


def l2_normalise(x: jax.Array, epsilon: float = 1e-12) -> jax.Array:
    """Returns `x` [..., D] over its Euclidean norm; the gradient at 0 is finite, as `epsilon` is inside the root."""
    return x * lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + epsilon)
