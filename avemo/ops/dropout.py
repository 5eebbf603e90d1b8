"""Dropout by example: the masks are the same on any number of devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from avemo.ops import global_batch


def example_keys(key: Key[Array, ""], count: int) -> Key[Array, "b"]:
    """Returns one key per row at hand, made from its number in the global batch (`avemo.ops.global_batch`)."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, global_batch.row_numbers(count))


class Dropout(nn.Module):
    """`flax.linen.Dropout`, with a mask drawn per example.

    With Flax's own dropout, devices that share a key drop the same entries of different examples, and the dropped
    entries change with the number of devices.

    Attributes:
      rate: probability that an entry becomes 0; the others are scaled by 1 / (1 − rate).
      deterministic: True keeps everything and needs no rng.
    """

    rate: float
    deterministic: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b *rest"]) -> Float[Array, "b *rest"]:
        """Returns `x` with entries dropped; uses the rng `dropout`."""
        if self.deterministic or self.rate == 0.0:
            return x
        keys = example_keys(self.make_rng("dropout"), x.shape[0])
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / jnp.asarray(1.0 - self.rate, x.dtype), jnp.zeros((), x.dtype))
