"""Losses on continuous valence/arousal traces: 1 − CCC, with an optional mean squared error."""

import jax
import jax.numpy as jnp

from avemo.errors import unknown
from avemo.losses.reductions import psum, total_over, weighted_mean

EPSILON = (
    1e-8  # in the denominator only: a trace's variance is ≥ 1e-4 in practice, so its effect is below 1e-4 relative
)


def ccc(
    predictions: jax.Array,
    targets: jax.Array,
    mask: jax.Array | None = None,
    *,
    axes: tuple[int, ...] = (1,),
    epsilon: float = EPSILON,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Concordance correlation 2·cov / (var_x + var_y + (mean_x − mean_y)²), every moment biased (1/n).

    Two passes in float32, the second after a common shift of both traces, so an offset of 1e3 costs no accuracy. A
    constant trace, a single frame and no frame at all give 0 (the numerator is 0), with a finite gradient.

    Args:
      predictions: [B, T, ...].
      targets: the same shape.
      mask: bool or 0/1, the same shape or its leading axes (e.g. [B, T]); None takes every frame.
      axes: the axes that the moments run over.
      epsilon: added to the denominator.
      axis_name: device axis that the moments run over as well; None for a CCC that lies within one device.

    Returns:
      The CCC and the number of frames behind it, float32, of the shape that is left when `axes` are summed away.
    """
    mask = _full_mask(mask, targets.shape)
    x, y = (jnp.where(mask, value.astype(jnp.float32), 0.0) for value in (predictions, targets))

    def total(value: jax.Array) -> jax.Array:
        return psum(total_over(value, axes), axis_name)

    count = total(mask.astype(jnp.float32))
    share = 1.0 / jnp.maximum(count, 1.0)
    # CCC does not change under a common shift. With y's mean at 0, nothing large is taken from anything large below:
    # cov = mean(xy) − mean(x)·mean(y), and the denominator is var_x + var_y + (mean_x − mean_y)² =
    # mean(x²) + mean(y²) − 2·mean(x)·mean(y), whose last term is rounding.
    shift = jax.lax.stop_gradient(total(y) * share)
    x, y = (jnp.where(mask, _minus(value, shift), 0.0) for value in (x, y))
    means = (total(x) * share) * (total(y) * share)
    value = 2.0 * (total(x * y) * share - means) / (total(x * x + y * y) * share - 2.0 * means + epsilon)
    return value.squeeze(axes), count.squeeze(axes)


def ccc_loss(
    predictions: jax.Array,
    targets: jax.Array,
    mask: jax.Array | None = None,
    *,
    per: str = "recording",
    mse_weight: float = 0.0,
    epsilon: float = EPSILON,
    axis_name: str | None = None,
) -> jax.Array:
    """1 − mean CCC over dimensions, plus λ · mean squared error.

    That arXiv 2103.09154 trained on 1 − CCC per dimension is our assumption; the field does.

    `per="recording"`: one CCC a row of the batch, averaged over the rows with at least one frame. `per="batch"`: one
    CCC over all frames of all rows *of all devices*: a different loss, not the mean of the devices' own.
    An all-masked row is left out; an all-masked batch costs 0; a row of one frame, or with a constant trace, costs 1.

    Args:
      predictions: [B, T, K].
      targets: [B, T, K]; NaN means unlabelled and is left out.
      mask: [B, T] or [B, T, K], bool.
      per: "recording" or "batch".
      mse_weight: λ.
      epsilon: added to the CCC's denominator.
      axis_name: device axis, see `avemo.losses`.
    """
    mask = _full_mask(mask, targets.shape) & jnp.isfinite(targets)
    if per == "recording":
        values, count = ccc(predictions, targets, mask, axes=(1,), epsilon=epsilon)
        loss = weighted_mean(1.0 - values, count > 0, axis_name)
    elif per == "batch":
        values, count = ccc(predictions, targets, mask, axes=(0, 1), epsilon=epsilon, axis_name=axis_name)
        loss = weighted_mean(1.0 - values, count > 0)  # already global
    else:
        raise unknown("CCC loss kind", per, ("recording", "batch"))
    if mse_weight:
        error = jnp.where(mask, predictions.astype(jnp.float32) - targets.astype(jnp.float32), 0.0)
        loss += mse_weight * weighted_mean(error * error, mask, axis_name)
    return loss


def rater_ccc_loss(
    predictions: jax.Array,
    raters: jax.Array,
    mask: jax.Array | None = None,
    *,
    per: str = "recording",
    mse_weight: float = 0.0,
    epsilon: float = EPSILON,
    axis_name: str | None = None,
) -> jax.Array:
    """`ccc_loss` against every rater's own trace, each rater and dimension counting alike.

    Args:
      predictions: [B, T, R, K], one head a rater, or [B, T, K]: one trace against all the raters.
      raters: [B, T, R, K]; NaN where a rater did not rate.
      mask: [B, T], [B, T, R] or [B, T, R, K], bool.
      per: as in `ccc_loss`.
      mse_weight: as in `ccc_loss`.
      epsilon: as in `ccc_loss`.
      axis_name: device axis, see `avemo.losses`.
    """
    if predictions.ndim == raters.ndim - 1:
        predictions = predictions[:, :, None, :]
    predictions = jnp.broadcast_to(predictions, raters.shape)
    return ccc_loss(predictions, raters, mask, per=per, mse_weight=mse_weight, epsilon=epsilon, axis_name=axis_name)


def _full_mask(mask: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    if mask is None:
        return jnp.ones(shape, bool)
    return jnp.broadcast_to(mask.astype(bool).reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)


def _minus(x: jax.Array, mean: jax.Array) -> jax.Array:
    return x - jnp.broadcast_to(mean, x.shape)
