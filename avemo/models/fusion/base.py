"""What the fusion strategies share."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.ops.linear import Dense

Extras = dict[str, Any]


class Fusion(nn.Module):
    """Base of the strategies.

    Attributes:
      features: D, the width of the joint representation (of each modality's half in `model_level`).
      dtype: compute dtype; parameters and the output are float32.
    """

    features: int = 64
    dtype: Any = jnp.float32

    streams: ClassVar[bool] = True
    level: ClassVar[str] = "feature"

    @nn.nowrap
    def dense(self, name: str, features: int | None = None, **arguments: Any) -> Dense:
        """A dense layer of width `features`, by default the module's own."""
        return Dense(features or self.features, dtype=self.dtype, name=name, **arguments)

    @nn.nowrap
    def join(self, *parts: jax.Array) -> jax.Array:
        """ReLU(dense([parts])), the joint representation: the last layer (`join`) of several strategies."""
        return nn.relu(self.dense("join")(jnp.concatenate([p.astype(self.dtype) for p in parts], -1))).astype(
            jnp.float32
        )


def present(x: jax.Array, mask: jax.Array) -> jax.Array:
    """`x` [B, T, D] with the frames outside `mask` [B, T] set to 0, NaN included."""
    return jnp.where(mask[:, :, None], x, 0)
