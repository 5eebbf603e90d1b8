"""Temporal convolutional network: dilated convolutions over time."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.ops.convolution import UnpaddedConv
from avemo.ops.dropout import Dropout
from avemo.ops.layer_norm import LayerNorm
from avemo.ops.linear import Dense
from media.errors import UserError


class DilatedConv(nn.Module):
    """A dilated 1-D convolution that, if causal, can continue from the inputs it last saw.

    Attributes:
      features: output channels.
      kernel_size: K.
      dilation: frames between taps.
      causal: taps on the present and past only; otherwise centred (K odd).
      dtype: compute dtype.
    """

    features: int
    kernel_size: int
    dilation: int
    causal: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, context: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
        """(x [B, T, D], mask [B, T], context [B, (K−1)·dilation, D] or None) -> (y [B, T, F], the next context)."""
        reach = (self.kernel_size - 1) * self.dilation
        x = jnp.where(mask[:, :, None], x, 0).astype(self.dtype)
        conv = UnpaddedConv(self.features, self.kernel_size, self.dilation, self.dtype, name="Conv_0")
        if not self.causal:
            return conv(jnp.pad(x, ((0, 0), (reach // 2, reach // 2), (0, 0)))), None
        if context is None:
            context = jnp.zeros((x.shape[0], reach, x.shape[-1]), self.dtype)
        seen = jnp.concatenate([context.astype(self.dtype), x], axis=1)
        # The last `reach` *real* frames, which end at the row's length if there is padding.
        index = mask.sum(axis=1, dtype=jnp.int32)[:, None] + jnp.arange(reach, dtype=jnp.int32)[None, :]
        return conv(seen), jnp.take_along_axis(seen, index[:, :, None], axis=1)


class TCN(nn.Module):
    """Residual blocks of two dilated convolutions, dilation doubling per block. Bai et al., arXiv 1803.01271.

    Layer norm per frame replaces the paper's weight norm: no statistic crosses time, so a stream equals the whole.

    Attributes:
      features: H.
      num_blocks: blocks; the receptive field is 1 + 2·(K − 1)·(2^blocks − 1) frames.
      kernel_size: K.
      causal: look at the present and past only, with a carry; otherwise centred, K odd.
      dropout: rate after each convolution.
      dtype: compute dtype.
    """

    features: int = 64
    num_blocks: int = 4
    kernel_size: int = 3
    causal: bool = True
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, train: bool = False, initial_carry: Any = None
    ) -> tuple[jax.Array, Any]:
        """(x [B, T, D], mask [B, T]) -> (hidden [B, T, H] float32, carry: the context of each convolution, or None)."""
        if not self.causal and (initial_carry is not None or self.kernel_size % 2 == 0):
            raise UserError("tcn with causal=False has no carry and needs an odd kernel_size")
        carry: list[jax.Array | None] = []
        for block in range(self.num_blocks):
            residual = x
            for _ in range(2):
                context = None if initial_carry is None else initial_carry[len(carry)]
                conv = DilatedConv(self.features, self.kernel_size, 2**block, self.causal, self.dtype)
                x, context = conv(x, mask, context)
                carry.append(context)
                x = nn.relu(LayerNorm(dtype=self.dtype)(x))
                x = Dropout(self.dropout, deterministic=not train)(x)
            if residual.shape[-1] != self.features:
                residual = Dense(self.features, dtype=self.dtype)(residual)
            x = x + residual.astype(x.dtype)
        return x.astype(jnp.float32), tuple(carry) if self.causal else None

    def step(self, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        """One frame: (carry, x [B, D]) -> (carry, hidden [B, H]); `carry=None` starts a sequence."""
        hidden, carry = self(x[:, None, :], jnp.ones((x.shape[0], 1), bool), initial_carry=carry)
        return carry, hidden[:, 0]
