"""Convolutions as Flax modules: each picks the kernel that is fastest on the platform it is compiled for.

Parameter names are Flax's own (`kernel`, `bias`), so converted weights, freezing patterns and Flax tools fit. Images
are NHWC. Parameters are float32 whatever the compute `dtype`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from avemo.ops.batch_norm import BatchNorm
from avemo.ops.depthwise import convolve_depthwise
from avemo.ops.linear import Dtype, add_bias, statistics_dtype
from avemo.ops.pointwise import convolve_pointwise
from avemo.ops.spatial import Edges, convolve_spatial

Padding = str | Sequence[tuple[int, int]]


class Conv(nn.Module):
    """2-D convolution with the parameters of `nn.Conv`: `kernel` [h, w, I / groups, O].

    A 1×1 kernel runs as a matrix product over channels (`avemo.ops.pointwise`), a depthwise one as shifted products
    (`avemo.ops.depthwise`), any other by `avemo.ops.spatial`.

    Attributes:
      feature_group_count: 1, or the number of channels (depthwise).
    """

    features: int
    kernel_size: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "SAME"
    feature_group_count: int = 1
    use_bias: bool = True
    dtype: Dtype = jnp.float32
    kernel_init: Callable = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
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
        rows, columns = ((low, high) for low, high in padding)
        return rows, columns


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
    def __call__(self, x: Float[Array, "b h w i"], train: bool, convolved: bool = False) -> Float[Array, "b h2 w2 o"]:
        """Returns activation(bn(conv(x))); with `convolved`, `x` is conv(x) already (`avemo.ops.branches`)."""
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


class UnpaddedConv(nn.Module):
    """`nn.Conv` over time without padding, with its parameters and initial values, and `add_bias`."""

    features: int
    kernel_size: int
    dilation: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t2 f"]:
        """Returns T − (K − 1) · dilation frames."""
        shape = (self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32).astype(self.dtype)
        # One product over all taps: XLA's convolutions over time, and more so their gradients, are slow on CPUs. What
        # accelerators would prefer was not measured.
        length = max(0, x.shape[1] - (self.kernel_size - 1) * self.dilation)
        starts = range(0, self.kernel_size * self.dilation, self.dilation)
        taps = jnp.concatenate([x[:, start : start + length] for start in starts], -1).astype(self.dtype)
        y = taps @ kernel.reshape(-1, self.features)
        return add_bias(y, self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32))
