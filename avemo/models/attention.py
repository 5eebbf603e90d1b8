"""The attention block and the positions shared by the transformer and the attention fusions."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from avemo.ops.attention import attend
from avemo.ops.dropout import Dropout
from avemo.ops.layer_norm import LayerNorm
from avemo.ops.linear import Dense
from media.errors import UserError


class AttentionBlock(nn.Module):
    """Pre-norm block: queries from one sequence, keys and values from another (or the same), then a feed-forward layer.

    Attributes:
      features: D of queries and output.
      num_heads: heads; D must be a multiple.
      causal: a query sees keys ≤ its own position.
      window: a query sees keys within this distance; None sees all.
      dropout: rate after attention and feed-forward.
      dtype: compute dtype.
      feed_forward: hidden width as a multiple of D.
    """

    features: int
    num_heads: int = 4
    causal: bool = False
    window: int | None = None
    dropout: float = 0.0
    dtype: Any = jnp.float32
    feed_forward: int = 2

    @nn.compact
    def __call__(self, x: jax.Array, source: jax.Array, source_mask: jax.Array, train: bool = False) -> jax.Array:
        """(x [B, Tq, D], source [B, Tk, Ds], source_mask [B, Tk]) -> [B, Tq, D]; masked frames have no effect."""
        if self.features % self.num_heads:
            raise UserError(f"features={self.features} is not a multiple of num_heads={self.num_heads}: change either")
        head = (self.num_heads, self.features // self.num_heads)
        normed = LayerNorm(dtype=self.dtype, name="norm_query")(x)
        shared = source is x
        source = normed if shared else LayerNorm(dtype=self.dtype, name="norm_source")(source)
        source = jnp.where(source_mask[:, :, None], source, 0)
        q = Dense(head, dtype=self.dtype, name="query")(normed)
        # Keys have no bias: it would add the same number to every score of a query and never get a gradient.
        k = Dense(head, dtype=self.dtype, use_bias=False, name="key")(source)
        v = Dense(head, dtype=self.dtype, name="value")(source)
        y = attend(q, k, v, source_mask, self.causal, self.window)
        y = Dense(self.features, axes=2, dtype=self.dtype, name="out")(y)
        x = x.astype(y.dtype) + Dropout(self.dropout, deterministic=not train)(y)
        y = LayerNorm(dtype=self.dtype, name="norm_feed_forward")(x)
        y = nn.gelu(Dense(self.feed_forward * self.features, dtype=self.dtype, name="expand")(y))
        y = Dense(self.features, dtype=self.dtype, name="contract")(y)
        return x + Dropout(self.dropout, deterministic=not train)(y)


def add_positions(x: jax.Array) -> jax.Array:
    """Adds the sinusoidal position of each frame, arXiv 1706.03762, to x [B, T, D]."""
    return x + positions(x.shape[1], x.shape[2]).astype(x.dtype)[None]


def positions(length: int, features: int) -> jax.Array:
    """Returns sinusoidal positions [length, features] with wavelengths of 2π to 10⁴·2π frames."""
    rate = np.exp(-math.log(1e4) * np.arange(0, features, 2) / features)
    angle = np.arange(length)[:, None] * rate[None, :]
    table = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(length, -1)[:, :features]
    return jnp.asarray(table, jnp.float32)
