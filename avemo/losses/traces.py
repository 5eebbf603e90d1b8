"""Losses on continuous valence/arousal traces: 1 − CCC, with an optional mean squared error."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from avemo.losses.concordance import EPSILON, ccc, full_mask
from avemo.ops.reductions import safe_divide, weighted_mean, weighted_sums
from media.errors import UserError, unknown


def ccc_loss(
    predictions: Float[Array, "b t k"],
    targets: Float[Array, "b t k"],
    mask: Bool[Array, "..."] | None = None,
    *,
    per: str = "recording",
    mse_weight: float = 0.0,
    dimensions: Sequence[float] | None = None,
    epsilon: float = EPSILON,
) -> Float[Array, ""]:
    """1 − mean CCC over dimensions, plus λ · mean squared error.

    arXiv 2103.09154 does not state its loss; 1 − CCC per dimension is our assumption, and common in the field.

    `per="recording"`: one CCC per row of the batch, averaged over the rows with at least one frame. `per="batch"`: one
    CCC over all frames of all rows *of all devices*, which is not the mean of the devices' own CCCs.
    An all-masked row is left out; an all-masked batch costs 0; a row of one frame, or with a constant trace, costs 1.

    Args:
      predictions: traces of K dimensions.
      targets: NaN means unlabelled and is left out.
      mask: [B, T] or [B, T, K].
      per: "recording" or "batch".
      mse_weight: λ.
      dimensions: K weights of the dimensions' CCCs, in proportion; by default equal.
      epsilon: added to the CCC's denominator.
    """
    if per == "recording":
        values, count = ccc(predictions, targets, mask, axes=(1,), epsilon=epsilon)
        loss = weighted_mean(_weighted(1.0 - values, dimensions), count > 0)
    elif per == "batch":
        values, count = ccc(predictions, targets, mask, axes=(0, 1), epsilon=epsilon)
        loss = safe_divide(*weighted_sums(_weighted(1.0 - values, dimensions), count > 0))  # already over all devices
    else:
        raise unknown("CCC loss kind", per, ("recording", "batch"))
    if mse_weight:
        mask = full_mask(mask, targets.shape) & jnp.isfinite(targets)
        error = jnp.where(mask, predictions.astype(jnp.float32) - targets.astype(jnp.float32), 0.0)
        loss += mse_weight * weighted_mean(error * error, mask)
    return loss


def rater_ccc_loss(
    predictions: Float[Array, "..."],
    raters: Float[Array, "b t r k"],
    mask: Bool[Array, "..."] | None = None,
    *,
    per: str = "recording",
    mse_weight: float = 0.0,
    dimensions: Sequence[float] | None = None,
    epsilon: float = EPSILON,
) -> Float[Array, ""]:
    """`ccc_loss` against every rater's trace; each rater and dimension has the same weight.

    Args:
      predictions: [B, T, R, K], one trace per rater, or [B, T, K], one trace for all of them.
      raters: NaN where a rater did not rate.
      mask: [B, T], [B, T, R] or [B, T, R, K].
      per: as in `ccc_loss`.
      mse_weight: as in `ccc_loss`.
      dimensions: as in `ccc_loss`.
      epsilon: as in `ccc_loss`.
    """
    if predictions.ndim == raters.ndim - 1:
        predictions = predictions[:, :, None, :]
    predictions = jnp.broadcast_to(predictions, raters.shape)
    options: dict[str, Any] = {"per": per, "mse_weight": mse_weight, "dimensions": dimensions, "epsilon": epsilon}
    return ccc_loss(predictions, raters, mask, **options)


def _weighted(losses: Float[Array, "... k"], dimensions: Sequence[float] | None) -> Float[Array, "... k"]:
    """The losses times the dimensions' weights, which have mean 1."""
    if dimensions is None:
        return losses
    weights = np.asarray(dimensions, np.float32)
    if weights.shape != losses.shape[-1:] or not (weights >= 0).all() or not weights.sum() > 0:
        raise UserError(f"loss.dimensions={tuple(dimensions)} must be {losses.shape[-1]} weights ≥ 0, not all 0.")
    return losses * jnp.broadcast_to(jnp.asarray(weights / weights.mean()), losses.shape)
