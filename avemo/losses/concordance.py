"""The concordance correlation coefficient (CCC) of traces, and its gradient."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from avemo.ops import device_axis
from avemo.ops.reductions import totals

# In the denominator only. A trace's variance is ≥ 1e-4 in practice, so its relative effect is below 1e-4.
EPSILON = 1e-8


def ccc(
    predictions: Float[Array, "b t *k"],
    targets: Float[Array, "b t *k"],
    mask: Shaped[Array, "..."] | None = None,
    *,
    axes: tuple[int, ...] = (1,),
    epsilon: float = EPSILON,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Concordance correlation 2·cov / (var_x + var_y + (mean_x − mean_y)²), every moment biased (1/n).

    Computed in float32. Traces far from 0 are first shifted together, so an offset of 1e3 costs no accuracy. Within one
    device only reverse-mode derivatives exist. A constant trace, a single frame and no frame at all give 0 (the
    numerator is 0), with a finite gradient.

    Args:
      predictions: x.
      targets: y; NaN means unlabelled and is left out.
      mask: bool or 0/1, of the targets' shape or of its leading axes (e.g. [B, T]); None takes every frame.
      axes: the axes that the moments run over. With axis 0 among them, they run over the rows of all devices.
      epsilon: added to the denominator.

    Returns:
      The CCC and the number of frames behind it, float32, without the axes `axes`.
    """
    x, y = (value.astype(jnp.float32) for value in (predictions, targets))
    if 0 in axes and device_axis.is_bound():
        sums = _careful(x, y, mask, axes)
        value, count = _value(sums, epsilon), sums.frames
    else:
        value, count = _ccc(x, y, mask, axes, epsilon)
    return value.squeeze(axes), count.squeeze(axes)


class _Sums(NamedTuple):
    """Σ x', Σ y', Σ x'y' and Σ x'² + y'² of x' = x − shift, y' = y − shift, and the number of frames."""

    x: jax.Array
    y: jax.Array
    products: jax.Array
    squares: jax.Array
    frames: jax.Array
    shift: jax.Array


def _means(sums: _Sums) -> tuple[jax.Array, ...]:
    return tuple(value / jnp.maximum(sums.frames, 1.0) for value in sums[:4])


def _value(sums: _Sums, epsilon: float) -> jax.Array:
    """The CCC, which does not change under a common shift.

    With the mean of y near 0, no large numbers are subtracted: cov = mean(xy) − mean(x)·mean(y), and the denominator
    is var_x + var_y + (mean_x − mean_y)² = mean(x² + y²) − 2·mean(x)·mean(y).
    """
    x, y, products, squares = _means(sums)
    return 2.0 * (products - x * y) / (squares - 2.0 * x * y + epsilon)


def _careful(x: jax.Array, y: jax.Array, mask: jax.Array | None, axes: tuple[int, ...]) -> _Sums:
    """Sums over the frames that count, shifted by the mean of their y."""

    def total(*values: jax.Array) -> tuple[jax.Array, ...]:
        sums = totals(values, axes)
        return tuple(device_axis.psum(value) for value in sums) if 0 in axes else sums

    labelled = full_mask(mask, y.shape) & jnp.isfinite(y)
    x, y = (jnp.where(labelled, value, 0.0) for value in (x, y))
    sum_y, count = total(y, labelled.astype(jnp.float32))
    shift = jax.lax.stop_gradient(sum_y / jnp.maximum(count, 1.0))
    x, y = (jnp.where(labelled, _minus(value, shift), 0.0) for value in (x, y))
    x_total, y_total, products, squares = total(x, y, x * y, x * x + y * y)
    return _Sums(x_total, y_total, products, squares, count, shift)


def _quick(x: jax.Array, y: jax.Array, mask: jax.Array | None, axes: tuple[int, ...]) -> _Sums:
    """`_careful`, but in one pass and without a shift if every frame counts and the means are near enough to 0.

    Near enough: what `_value` subtracts is at most 4 times what remains, which costs two bits.
    """
    careful = functools.partial(_careful, x, y, mask, axes)

    def one_pass() -> _Sums:
        x_total, y_total, products, squares = totals((x, y, x * y, x * x + y * y), axes)
        # If the sums are finite, so are their terms, and no frame needs a test. The difference is 0 and varies over
        # devices as the sums do.
        zero = y_total - y_total
        sums = _Sums(x_total, y_total, products, squares, zero + y.size / zero.size, zero)
        mean_x, mean_y, _, mean_squares = _means(sums)
        near = mean_x**2 + mean_y**2 <= 4.0 * (mean_squares - 2.0 * mean_x * mean_y)  # False if a term is not finite
        return jax.lax.cond(near.all(), lambda: sums, careful)

    return one_pass() if mask is None else jax.lax.cond(mask.astype(bool).all(), one_pass, careful)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _ccc(
    x: jax.Array, y: jax.Array, mask: jax.Array | None, axes: tuple[int, ...], epsilon: float
) -> tuple[jax.Array, jax.Array]:
    """`ccc` of float32 traces on one device, summed axes kept; only reverse-mode derivatives."""
    return _forward(x, y, mask, axes, epsilon)[0]


def _forward(
    x: jax.Array, y: jax.Array, mask: jax.Array | None, axes: tuple[int, ...], epsilon: float
) -> tuple[tuple[jax.Array, jax.Array], tuple]:
    quick, careful = (functools.partial(f, mask=mask, axes=axes) for f in (_quick, _careful))
    sums = jax.lax.platform_dependent(x, y, cpu=quick, default=careful)
    value = _value(sums, epsilon)
    return (value, sums.frames), (x, y, mask, sums, value)


def _backward(axes: tuple[int, ...], epsilon: float, saved: tuple, changes: tuple[jax.Array, jax.Array]) -> tuple:
    x, y, mask, sums, value = saved
    mean_x, mean_y, _, squares = _means(sums)
    rate = changes[0] * 2.0 / (jnp.maximum(sums.frames, 1.0) * (squares - 2.0 * mean_x * mean_y + epsilon))
    labelled = full_mask(mask, y.shape) & jnp.isfinite(y)

    def change(own: jax.Array, other: jax.Array, centre: jax.Array) -> jax.Array:
        difference = _minus(other, centre) - value * _minus(own, centre)
        return jnp.where(labelled, rate * difference, 0.0)

    return change(x, y, sums.shift + mean_y), change(y, x, sums.shift + mean_x), None


_ccc.defvjp(_forward, _backward)


def full_mask(mask: Shaped[Array, "..."] | None, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """Returns `mask` (or all True for None) with trailing axes added and broadcast to `shape`."""
    if mask is None:
        return jnp.ones(shape, bool)
    return jnp.broadcast_to(mask.astype(bool).reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)


def _minus(x: jax.Array, mean: jax.Array) -> jax.Array:
    return x - jnp.broadcast_to(mean, x.shape)
