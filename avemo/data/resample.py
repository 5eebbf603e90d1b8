"""Resampling whose result does not depend on the order of sums, and so not on the batch, the devices or the program.

A pixel that lies between two whole numbers would otherwise be rounded up in one program and down in another, and
RandAugment's operations make much of one level. Weights and what lies between the two passes are therefore whole
multiples of powers of two with so few bits that float32 holds every sum exactly.
"""

import jax
import jax.numpy as jnp

_PLACES = 64  # positions are whole 64ths of a pixel
_ROWS, _BETWEEN, _COLUMNS = 14, 5, 11  # bits behind the point; 8 + 14 and 8 + 5 + 11 are at most float32's 24


def resample(
    image: jax.Array, size: int, side: jax.Array, corner: jax.Array, blur: float | jax.Array = 0.0, repeat: bool = False
) -> jax.Array:
    """Resizes a part of a picture by linear interpolation, with antialiasing when shrinking.

    Args:
      image: uint8 `[H, W, 3]`.
      size: side S of the result, pixels.
      side: the part's height and width, float32 `[2]`, pixels.
      corner: its upper left corner (y, x), float32 `[2]`, pixels; 0 is the outer edge of the first pixel.
      blur: widens the triangle by which pixels are averaged to each side, a share of the picture's sides.
      repeat: whether the picture's edge is repeated beyond it; otherwise only what lies inside counts.

    Returns:
      float32 `[S, S, 3]`, at most a quarter from the exact value.
    """
    rows, columns = (
        _weights(length, size, side[axis], corner[axis], blur * length, repeat, bits)
        for axis, (length, bits) in enumerate(zip(image.shape[:2], (_ROWS, _COLUMNS), strict=True))
    )
    exact = jax.lax.Precision.HIGHEST
    between = jnp.einsum("oh,hwc->owc", rows, image.astype(jnp.float32), precision=exact)
    between = jnp.round(between * 2**_BETWEEN) / 2**_BETWEEN
    return jnp.einsum("owc,pw->opc", between, columns, precision=exact)


def _weights(
    length: int, size: int, side: jax.Array, corner: jax.Array, blur: jax.Array, repeat: bool, bits: int
) -> jax.Array:
    """Weights `[size, length]`, multiples of 2^-bits whose rows sum to 1.

    In whole numbers: a pixel is 2 · size · `_PLACES` units long, so that the centres of the result's pixels are whole.
    """
    side, corner, blur = (jnp.round(_PLACES * x).astype(jnp.int32) for x in (side, corner, blur))
    pixel = 2 * size * _PLACES
    centre = (2 * jnp.arange(size, dtype=jnp.int32) + 1) * side + 2 * size * corner - pixel // 2
    if repeat:
        centre = jnp.clip(centre, 0, (length - 1) * pixel)
    reach = jnp.maximum(pixel, 2 * side) + 2 * size * blur
    distance = jnp.abs(centre[:, None] - pixel * jnp.arange(length, dtype=jnp.int32)[None])
    triangle = jnp.maximum(0, reach - distance)
    total = triangle.sum(1, keepdims=True)
    share = jnp.round(triangle.astype(jnp.float32) * 2**bits / total.astype(jnp.float32))
    left = 2**bits - share.sum(1, keepdims=True)  # what rounding has left goes to the largest
    largest = jnp.arange(length, dtype=jnp.int32)[None] == jnp.argmax(share, 1, keepdims=True)
    return (share + jnp.where(largest, left, 0.0)) / 2**bits
