"""Products and biases, with the bias in float32: what is summed over a batch is never summed in bfloat16."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

Dtype = Any


def statistics_dtype(dtype: Dtype) -> Dtype:
    """Returns the dtype for sums and statistics of `dtype`: float32 at least."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns x [..., *S] + bias [*S] in `x`'s dtype, added in float32.

    The bias's gradient is then a float32 sum over all else. In bfloat16, of 8 bits, such a sum of n numbers of one size
    stops growing near n = 256: over the places of a batch of pictures it came out five times too small.
    """
    inside = statistics_dtype(x.dtype)
    bias = bias.astype(inside).reshape((1,) * (x.ndim - bias.ndim) + bias.shape)
    return (x.astype(inside) + bias).astype(x.dtype)


class Dense(nn.Module):
    """`nn.Dense` and `nn.DenseGeneral`, their parameters and initial values, with `add_bias`.

    Attributes:
      features: width of the output, or its last axes' shape.
      use_bias: whether there is a bias.
      dtype: compute dtype; parameters are float32.
      axes: how many of the input's last axes are summed over.
    """

    features: int | Sequence[int]
    use_bias: bool = True
    dtype: Dtype = jnp.float32
    axes: int = 1
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(x [..., *inputs]) -> [..., *features] in `dtype`."""
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
