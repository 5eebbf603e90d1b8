"""Losses on continuous valence/arousal traces: 1 − CCC, with an optional mean squared error."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from avemo.ops import device_axis
from avemo.ops.reductions import safe_divide, totals, weighted_mean, weighted_sums
from media.errors import unknown

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
) -> tuple[jax.Array, jax.Array]:
    """Concordance correlation 2·cov / (var_x + var_y + (mean_x − mean_y)²), every moment biased (1/n).

    In float32, after a common shift of both traces where they are far from 0, so an offset of 1e3 costs no accuracy.
    Only reverse-mode derivatives within one device. A constant trace, a single frame and no frame at all give 0 (the
    numerator is 0), with a finite gradient.

    Args:
      predictions: [B, T, ...].
      targets: the same shape; NaN means unlabelled and is left out.
      mask: bool or 0/1, the same shape or its leading axes (e.g. [B, T]); None takes every frame.
      axes: the axes that the moments run over. With axis 0 among them, they run over the rows of all devices.
      epsilon: added to the denominator.

    Returns:
      The CCC and the number of frames behind it, float32, of the shape that is left when `axes` are summed away.
    """
    x, y = (value.astype(jnp.float32) for value in (predictions, targets))
    if 0 in axes and device_axis.is_bound():
        sums = _careful(x, y, mask, axes)
        value, count = _value(sums, epsilon), sums.count
    else:
        value, count = _ccc(x, y, mask, axes, epsilon)
    return value.squeeze(axes), count.squeeze(axes)


class _Sums(NamedTuple):
    """Σ x', Σ y', Σ x'y' and Σ x'² + y'² of x' = x − shift, y' = y − shift, and the number of frames."""

    x: jax.Array
    y: jax.Array
    products: jax.Array
    squares: jax.Array
    count: jax.Array
    shift: jax.Array


def _means(sums: _Sums) -> tuple[jax.Array, ...]:
    return tuple(value / jnp.maximum(sums.count, 1.0) for value in sums[:4])


def _value(sums: _Sums, epsilon: float) -> jax.Array:
    """CCC, which does not change under a common shift.

    With y's mean near 0, nothing large is taken from anything large: cov = mean(xy) − mean(x)·mean(y), and the
    denominator is var_x + var_y + (mean_x − mean_y)² = mean(x² + y²) − 2·mean(x)·mean(y).
    """
    x, y, products, squares = _means(sums)
    return 2.0 * (products - x * y) / (squares - 2.0 * x * y + epsilon)


def _careful(x: jax.Array, y: jax.Array, mask: jax.Array | None, axes: tuple[int, ...]) -> _Sums:
    """Sums over the frames that count, shifted by the mean of their `y`."""

    def total(*values: jax.Array) -> tuple[jax.Array, ...]:
        sums = totals(values, axes)
        return tuple(device_axis.psum(value) for value in sums) if 0 in axes else sums

    labelled = _full_mask(mask, y.shape) & jnp.isfinite(y)
    x, y = (jnp.where(labelled, value, 0.0) for value in (x, y))
    sum_y, count = total(y, labelled.astype(jnp.float32))
    shift = jax.lax.stop_gradient(sum_y / jnp.maximum(count, 1.0))
    x, y = (jnp.where(labelled, _minus(value, shift), 0.0) for value in (x, y))
    return _Sums(*total(x, y, x * y, x * x + y * y), count, shift)


def _quick(x: jax.Array, y: jax.Array, mask: jax.Array | None, axes: tuple[int, ...]) -> _Sums:
    """`_careful`, but in one pass and without a shift where every frame counts and the means are near enough to 0.

    Near enough: what is subtracted in `_value` is at most 4 times what is left, which costs two bits.
    """
    careful = functools.partial(_careful, x, y, mask, axes)

    def one_pass() -> _Sums:
        sums = totals((x, y, x * y, x * x + y * y), axes)
        # The sums are finite if their terms are: no frame need be asked. The difference is 0, and varies as they do.
        zero = sums[1] - sums[1]
        sums = _Sums(*sums, zero + y.size / zero.size, zero)
        mean_x, mean_y, _, squares = _means(sums)
        near = mean_x**2 + mean_y**2 <= 4.0 * (squares - 2.0 * mean_x * mean_y)  # False where a term is not finite
        return jax.lax.cond(near.all(), lambda: sums, careful)

    return one_pass() if mask is None else jax.lax.cond(mask.astype(bool).all(), one_pass, careful)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _ccc(
    x: jax.Array, y: jax.Array, mask: jax.Array | None, axes: tuple[int, ...], epsilon: float
) -> tuple[jax.Array, jax.Array]:
    """`ccc` of float32 traces on one device, dimensions kept; only reverse-mode derivatives."""
    return _forward(x, y, mask, axes, epsilon)[0]


def _forward(
    x: jax.Array, y: jax.Array, mask: jax.Array | None, axes: tuple[int, ...], epsilon: float
) -> tuple[tuple[jax.Array, jax.Array], tuple]:
    quick, careful = (functools.partial(f, mask=mask, axes=axes) for f in (_quick, _careful))
    sums = jax.lax.platform_dependent(x, y, cpu=quick, default=careful)
    value = _value(sums, epsilon)
    return (value, sums.count), (x, y, mask, sums, value)


def _backward(axes: tuple[int, ...], epsilon: float, saved: tuple, changes: tuple[jax.Array, jax.Array]) -> tuple:
    x, y, mask, sums, value = saved
    mean_x, mean_y, _, squares = _means(sums)
    rate = changes[0] * 2.0 / (jnp.maximum(sums.count, 1.0) * (squares - 2.0 * mean_x * mean_y + epsilon))
    labelled = _full_mask(mask, y.shape) & jnp.isfinite(y)

    def change(own: jax.Array, other: jax.Array, centre: jax.Array) -> jax.Array:
        difference = _minus(other, centre) - value * _minus(own, centre)
        return jnp.where(labelled, rate * difference, 0.0)

    return change(x, y, sums.shift + mean_y), change(y, x, sums.shift + mean_x), None


_ccc.defvjp(_forward, _backward)


def ccc_loss(
    predictions: jax.Array,
    targets: jax.Array,
    mask: jax.Array | None = None,
    *,
    per: str = "recording",
    mse_weight: float = 0.0,
    epsilon: float = EPSILON,
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
    """
    if per == "recording":
        values, count = ccc(predictions, targets, mask, axes=(1,), epsilon=epsilon)
        loss = weighted_mean(1.0 - values, count > 0)
    elif per == "batch":
        values, count = ccc(predictions, targets, mask, axes=(0, 1), epsilon=epsilon)
        loss = safe_divide(*weighted_sums(1.0 - values, count > 0))  # already over all devices
    else:
        raise unknown("CCC loss kind", per, ("recording", "batch"))
    if mse_weight:
        mask = _full_mask(mask, targets.shape) & jnp.isfinite(targets)
        error = jnp.where(mask, predictions.astype(jnp.float32) - targets.astype(jnp.float32), 0.0)
        loss += mse_weight * weighted_mean(error * error, mask)
    return loss


def rater_ccc_loss(
    predictions: jax.Array,
    raters: jax.Array,
    mask: jax.Array | None = None,
    *,
    per: str = "recording",
    mse_weight: float = 0.0,
    epsilon: float = EPSILON,
) -> jax.Array:
    """`ccc_loss` against every rater's own trace, each rater and dimension counting alike.

    Args:
      predictions: [B, T, R, K], one head a rater, or [B, T, K]: one trace against all the raters.
      raters: [B, T, R, K]; NaN where a rater did not rate.
      mask: [B, T], [B, T, R] or [B, T, R, K], bool.
      per: as in `ccc_loss`.
      mse_weight: as in `ccc_loss`.
      epsilon: as in `ccc_loss`.
    """
    if predictions.ndim == raters.ndim - 1:
        predictions = predictions[:, :, None, :]
    predictions = jnp.broadcast_to(predictions, raters.shape)
    return ccc_loss(predictions, raters, mask, per=per, mse_weight=mse_weight, epsilon=epsilon)


def _full_mask(mask: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    if mask is None:
        return jnp.ones(shape, bool)
    return jnp.broadcast_to(mask.astype(bool).reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)


def _minus(x: jax.Array, mean: jax.Array) -> jax.Array:
    return x - jnp.broadcast_to(mean, x.shape)
