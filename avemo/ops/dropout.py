"""Dropout whose mask belongs to the example: the same on any number of devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.ops import global_batch


def example_keys(key: jax.Array, count: int) -> jax.Array:
    """One key for each row at hand, from its number in the global batch (`avemo.ops.global_batch`): keys `[count]`."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, global_batch.numbers(count))


class Dropout(nn.Module):
    """`flax.linen.Dropout` with a mask that each example draws for itself.

    Under flax's own, devices that share a key drop the same entries of different examples, and another number of
    devices drops others.

    Attributes:
      rate: probability that an entry becomes 0; the others are scaled by 1 / (1 − rate).
      deterministic: True keeps everything; no rng is needed then.
    """

    rate: float
    deterministic: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `x` `[B, ...]` with entries dropped; uses the rng `dropout`."""
        if self.deterministic or self.rate == 0.0:
            return x
        keys = example_keys(self.make_rng("dropout"), x.shape[0])
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / jnp.asarray(1.0 - self.rate, x.dtype), jnp.zeros((), x.dtype))
