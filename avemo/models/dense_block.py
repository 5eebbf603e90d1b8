"""The dense block (Huang et al., 1608.06993) of DenseNet and of the teacher's neck."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from avemo.ops.batch_norm import BatchNorm
from avemo.ops.convolution import Conv
from avemo.ops.dropout import Dropout
from avemo.ops.linear import Dtype


class DenseLayer(nn.Module):
    """BN-ReLU-1×1(bottleneck · growth)-BN-ReLU-3×3(growth): the new features only, [B, H, W, growth].

    Names are torchvision's (`norm1`, `conv1`, `norm2`, `conv2`), so that weights map one to one.
    """

    growth: int
    bottleneck: int
    norm: Callable[..., nn.Module]
    dropout: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the [B, H, W, growth] features that this layer adds to `x` [B, H, W, C]."""
        x = nn.relu(self.norm(name="norm1")(x, train))
        x = Conv(self.bottleneck * self.growth, use_bias=False, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(self.norm(name="norm2")(x, train))
        x = Conv(self.growth, (3, 3), use_bias=False, dtype=self.dtype, name="conv2")(x)
        return Dropout(self.dropout, deterministic=not train)(x)


class DenseBlock(nn.Module):
    """`layers` dense layers; the input of each is the concatenation of the block's input and all earlier layers.

    Attributes:
      layers, growth, bottleneck: 5, 64, 4 in the teacher (second hand: reference thesis).
      norm: makes a BatchNorm, given a name.
      dropout: rate on the output of each layer; 0 in the teacher.
    """

    layers: int = 5
    growth: int = 64
    bottleneck: int = 4
    norm: Callable[..., nn.Module] = BatchNorm
    dropout: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns [B, H, W, C + layers · growth] for [B, H, W, C]."""
        for i in range(self.layers):
            layer = DenseLayer(
                self.growth, self.bottleneck, self.norm, self.dropout, self.dtype, name=f"denselayer{i + 1}"
            )
            x = jnp.concatenate([x, layer(x, train)], axis=-1)
        return x
