"""Pictures hold whole numbers between operations, as uint8 pictures do."""

import jax
import jax.numpy as jnp


def whole(x: jax.Array) -> jax.Array:
    """Rounds to uint8."""
    return jnp.clip(jnp.round(x), 0, 255).astype(jnp.uint8)


def cut_off(x: jax.Array) -> jax.Array:
    """Cuts decimals off, to uint8, as OpenCV's tables do."""
    return jnp.clip(x, 0, 255).astype(jnp.uint8)


def per_picture(x: jax.Array) -> jax.Array:
    """One value per example, shaped to broadcast over pictures."""
    return x[:, None, None, None]
