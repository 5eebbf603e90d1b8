"""What the fusion strategies share."""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from avemo.ops.linear import Dense

Extras = dict[str, Any]
Frames = Float[Array, "b t d"]
Mask = Bool[Array, "b t"]


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
        """Returns a dense layer of width `features`, by default that of the module."""
        return Dense(features or self.features, dtype=self.dtype, name=name, **arguments)

    @nn.nowrap
    def join(self, *inputs: Frames) -> Frames:
        """ReLU(dense([inputs])), the joint representation: the last layer (`join`) of several strategies."""
        joined = jnp.concatenate([x.astype(self.dtype) for x in inputs], -1)
        return nn.relu(self.dense("join")(joined)).astype(jnp.float32)


def present(x: Frames, mask: Mask) -> Frames:
    """Returns `x` with the frames outside `mask` set to 0, NaN included."""
    return jnp.where(mask[:, :, None], x, 0)
