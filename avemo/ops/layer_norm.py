"""Layer normalisation that takes bfloat16 under strict dtype promotion."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class LayerNorm(nn.Module):
    """Normalisation over the last axis, computed in float32, returned in `dtype`; parameters as `nn.LayerNorm`."""

    dtype: Any = jnp.float32
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Returns `x` normalised over its last axis."""
        scale = self.param("scale", nn.initializers.ones_init(), x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), x.shape[-1:], jnp.float32)
        x = x.astype(jnp.float32)
        x = x - x.mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + self.epsilon)
        return (x * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)).astype(self.dtype)
