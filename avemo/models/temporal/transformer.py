"""Pre-norm transformer over frames."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.models.attention import AttentionBlock, add_positions
from avemo.ops.layer_norm import LayerNorm
from avemo.ops.linear import Dense
from media.errors import UserError


class Transformer(nn.Module):
    """Self-attention over the frames of a sequence. Vaswani et al., arXiv 1706.03762, with pre-norm blocks.

    Attributes:
      features: H.
      num_layers: blocks.
      num_heads: heads; H must be a multiple.
      causal: a frame attends to itself and the past only.
      window: attend to frames at most this far away; None for no limit.
      dropout: rate in the blocks.
      dtype: compute dtype.
    """

    features: int = 64
    num_layers: int = 2
    num_heads: int = 4
    causal: bool = False
    window: int | None = None
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, train: bool = False, initial_carry: Any = None
    ) -> tuple[jax.Array, None]:
        """(x [B, T, D], mask [B, T]) -> (hidden [B, T, H] float32, None)."""
        if initial_carry is not None:
            raise UserError(
                "the transformer has no carry: it needs the whole sequence, or use gru, lstm, tcn or mingru"
            )
        x = add_positions(Dense(self.features, dtype=self.dtype)(x))
        for layer in range(self.num_layers):
            block = AttentionBlock(
                self.features, self.num_heads, self.causal, self.window, self.dropout, self.dtype, name=f"layer_{layer}"
            )
            x = block(x, x, mask, train)
        return LayerNorm(dtype=self.dtype)(x).astype(jnp.float32), None
