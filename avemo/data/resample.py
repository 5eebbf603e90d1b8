"""Resampling whose sums are exact, so that they depend on neither the batch, the devices nor the program.

A pixel that lies between two whole numbers would otherwise be rounded up in one program and down in another, and
RandAugment's operations make much of one level. Positions are therefore whole 64ths of a pixel, and the weights and
what lies between the two passes multiples of powers of two with so few bits that float32 holds every sum exactly.
"""

import jax
import jax.numpy as jnp

PLACES = 64  # of a pixel, where a part may begin and end
_ROWS, _BETWEEN, _COLUMNS = 14, 5, 11  # bits behind the point; 8 + 14 and 8 + 5 + 11 are at most float32's 24


def places(pixels: jax.Array) -> jax.Array:
    """The nearest whole 64ths, int32."""
    return jnp.round(PLACES * pixels).astype(jnp.int32)


def resample(
    image: jax.Array, size: int, side: jax.Array, corner: jax.Array, blur: jax.Array | None = None, repeat: bool = False
) -> jax.Array:
    """Resizes a part of a picture by linear interpolation, with antialiasing when shrinking.

    Args:
      image: uint8 `[H, W, 3]`.
      size: side S of the result, pixels.
      side: the part's height and width, int32 `[2]`, 64ths of a pixel.
      corner: its upper left corner (y, x), int32 `[2]`, 64ths; 0 is the outer edge of the first pixel.
      blur: widens the triangle under which pixels are averaged to each side, down and across, int32 `[2]`, 64ths.
      repeat: whether the picture's edge is repeated beyond it; if not, the part must lie in the picture.

    Returns:
      float32 `[S, S, 3]`; a pixel's weights are rounded to 2048ths.
    """
    blur = jnp.zeros(2, jnp.int32) if blur is None else blur
    rows, columns = (
        _weights(length, size, side[axis], corner[axis], blur[axis], repeat, bits)
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

    In whole numbers: a pixel is 2 · size · `PLACES` units long, so that the centres of the result's pixels are whole.
    """
    pixel = 2 * size * PLACES
    centre = (2 * jnp.arange(size, dtype=jnp.int32) + 1) * side + 2 * size * corner - pixel // 2
    if repeat:
        centre = jnp.clip(centre, 0, (length - 1) * pixel)
    reach = jnp.maximum(pixel, 2 * side) + 2 * size * blur
    distance = jnp.abs(centre[:, None] - pixel * jnp.arange(length, dtype=jnp.int32)[None])
    # Bits are dropped where the sum under a wide triangle could pass int32.
    triangle = jnp.maximum(0, reach - distance) >> (size * length**2 >> 29).bit_length()
    # Sums up to each pixel are rounded, and not the weights, so that these sum to 1 and errors do not add up.
    up_to = jnp.cumsum(triangle, 1)
    share = jnp.round(up_to.astype(jnp.float32) * 2**bits / up_to[:, -1:].astype(jnp.float32))
    return jnp.diff(share, axis=1, prepend=0.0) / 2**bits
