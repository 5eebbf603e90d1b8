"""Vectors on the unit sphere."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def l2_normalise(x: Float[Array, "*rows d"], epsilon: float = 1e-12) -> Float[Array, "*rows d"]:
    """x / √(‖x‖² + ε); a zero vector stays zero and its gradient is finite, since ε is inside the root."""
    return x * lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + epsilon)
