"""What the fusion strategies share."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from avemo.ops.linear import Dense
from media.errors import UserError

Extras = dict[str, Any]
Frames = Float[Array, "b t d"]
Mask = Bool[Array, "b t"]


class Fusion(nn.Module):
    """Base of the strategies.

    Attributes:
      features: D, the width of the joint representation (of each stream's share in `model_level`).
      dtype: compute dtype; parameters and the output are float32.
      inputs: names of the N streams, which name the parameters.
    """

    features: int = 64
    dtype: Any = jnp.float32
    inputs: tuple[str, ...] = ("audio", "visual")

    streams: ClassVar[bool] = True
    level: ClassVar[str] = "feature"

    @nn.nowrap
    def pairs(self, inputs: tuple[jax.Array, ...]) -> list[tuple[str, Frames, Mask]]:
        """The name, frames and mask of each stream, from N arrays of frames and then N masks."""
        count = len(self.inputs)
        if len(inputs) != 2 * count:
            raise UserError(f"a fusion of {count} streams takes {count} features and {count} masks, not {len(inputs)}.")
        return list(zip(self.inputs, inputs[:count], inputs[count:], strict=True))

    @nn.nowrap
    def present(self, inputs: tuple[jax.Array, ...]) -> dict[str, Frames]:
        """The frames of each stream, by name, with those outside its mask set to 0."""
        return {name: present(x, mask) for name, x, mask in self.pairs(inputs)}

    @nn.nowrap
    def seen(self, inputs: tuple[jax.Array, ...]) -> Bool[Array, "b t n"]:
        """The masks of all streams."""
        return jnp.stack([mask for _, _, mask in self.pairs(inputs)], -1)

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
