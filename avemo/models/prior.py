"""Traces that streams predict themselves: their weighted mean, smoothed and scaled, from which a network starts.

Streams that are predictions of valence and arousal (other systems' traces) have their answer in their first two
columns. With few recordings a network learns little more than how to combine them, so it learns what to add to this.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from media.errors import UserError

REACH = 3.0  # half-width of the smoothing kernel, in its deviations


class Prior(nn.Module):
    """a ∘ Σ_n w_n p_n + b over streams, smoothed over time by a Gaussian.

    It starts as the mean with the given weights, a = 1 and b = 0. The weights are convex, for each dimension its own;
    a masked stream has none. Smoothing needs later frames, so it has no carry.

    Attributes:
      weights: N numbers, the initial weight of each stream up to scale; () is equal.
      smooth: deviation of the Gaussian at the start, frames; 0 does not smooth.
    """

    weights: Sequence[float] = ()
    smooth: float = 0.0

    @nn.compact
    def __call__(
        self, predictions: Float[Array, "b t n 2"], seen: Bool[Array, "b t n"], mask: Bool[Array, "b t"]
    ) -> Float[Array, "b t 2"]:
        """Predictions of each stream, in the unit of the targets; masked frames are not read."""
        count = predictions.shape[-2]
        weights = self.weights or (1.0,) * count
        if len(weights) != count or not all(weight > 0 for weight in weights):
            raise UserError(f"model.prior_weights={tuple(weights)} must be {count} numbers above 0.")
        initial = np.repeat(np.log(np.asarray(weights, np.float32))[:, None], 2, 1)
        logits = self.param("weights", lambda _: jnp.asarray(initial))
        there = seen[..., None]
        share = jnp.where(there, jnp.broadcast_to(jax.nn.softmax(logits, 0), predictions.shape), 0.0)
        share = share / jnp.maximum(share.sum(-2, keepdims=True), 1e-6)
        mean = (share * jnp.where(there, predictions, 0.0)).sum(-2)
        known = mask & seen.any(-1)
        mean = self._smoothed(mean, known) if self.smooth else mean
        scale = jnp.exp(self.param("scale", nn.initializers.zeros_init(), (2,)))
        return mean * scale[None, None] + self.param("offset", nn.initializers.zeros_init(), (2,))[None, None]

    @nn.nowrap
    def _smoothed(self, x: Float[Array, "b t 2"], known: Bool[Array, "b t"]) -> Float[Array, "b t 2"]:
        """The mean over the known frames around each, weighted by a Gaussian."""
        reach = max(1, round(REACH * self.smooth))
        away = jnp.arange(-reach, reach + 1, dtype=jnp.float32) / self.smooth
        kernel = jnp.exp(-0.5 * away * away)
        weight = known[..., None].astype(jnp.float32)
        both = jnp.concatenate([jnp.where(weight > 0, x, 0.0), weight], -1).transpose(0, 2, 1)
        flat = both.reshape(-1, 1, both.shape[-1])
        summed = jax.lax.conv_general_dilated(flat, kernel[None, None], (1,), [(reach, reach)])
        summed = summed.reshape(both.shape).transpose(0, 2, 1)
        return summed[..., :-1] / jnp.maximum(summed[..., -1:], 1e-6)
