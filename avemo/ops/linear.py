"""Dense layers whose bias is added in float32, so that no sum over a batch is taken in bfloat16."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

Dtype = Any


def statistics_dtype(dtype: Dtype) -> Dtype:
    """Returns the dtype for sums and statistics of `dtype`: at least float32."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def add_bias(x: Float[Array, "*b_s"], bias: Float[Array, "*s"]) -> Float[Array, "*b_s"]:
    """Returns x [..., *S] + bias [*S] in the dtype of `x`, added in float32.

    The gradient of the bias is then a float32 sum over all other axes. In bfloat16, which has 8 bits, a sum of n equal
    numbers stops growing near n = 256; over the positions of a batch of pictures it came out five times too small.
    """
    inside = statistics_dtype(x.dtype)
    bias = bias.astype(inside).reshape((1,) * (x.ndim - bias.ndim) + bias.shape)
    return (x.astype(inside) + bias).astype(x.dtype)


class Dense(nn.Module):
    """`nn.Dense` and `nn.DenseGeneral` with `add_bias`; parameters and initial values are theirs.

    Attributes:
      features: width of the output, or the shape of its last axes.
      use_bias: add a bias.
      dtype: compute dtype; parameters are float32.
      axes: number of the input's last axes to sum over.
    """

    features: int | Sequence[int]
    use_bias: bool = True
    dtype: Dtype = jnp.float32
    axes: int = 1
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "*b_inputs"]) -> Float[Array, "*b_features"]:
        """Maps [..., *inputs] to [..., *features] in `dtype`."""
        outputs = (self.features,) if isinstance(self.features, int) else tuple(self.features)
        inputs = x.shape[x.ndim - self.axes :]

        def init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
            return self.kernel_init(key, (math.prod(inputs), math.prod(outputs)), dtype).reshape(shape)

        kernel = self.param("kernel", init, (*inputs, *outputs), jnp.float32).astype(self.dtype)
        last, first = tuple(range(x.ndim - self.axes, x.ndim)), tuple(range(self.axes))
        y = lax.dot_general(x.astype(self.dtype), kernel, ((last, first), ((), ())))
        if not self.use_bias:
            return y
        return add_bias(y, self.param("bias", nn.initializers.zeros, outputs, jnp.float32))
