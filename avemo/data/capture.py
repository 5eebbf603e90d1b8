"""Faces as detectors and cameras vary them: frame, sharpness, light and noise, inside the compiled training step.

Pure functions of a batch and one key per example, as in `augment`. Every strength is a share, 0 to 1.
"""

import jax
import jax.numpy as jnp

from avemo.data.pixels import per_picture, whole
from avemo.data.resample import places, resample

_BLUR = 1 / 8  # widest blur at strength 1: half the base of its triangle, as a share of the side
_GAMMA = 1.1  # log of the largest gamma at strength 1: a gamma of 3
_NOISE = 48.0  # largest standard deviation of the noise at strength 1, of 255


def framed(images: jax.Array, keys: jax.Array, zoom: float, blur: float, size: int) -> jax.Array:
    """Shows the face larger or smaller, wider or narrower, off centre and less sharp; resamples to `size`.

    Beyond the picture its edge is repeated, so that a frame can be wider than the picture.

    Args:
      images: uint8 `[B, H, W, 3]`.
      keys: `[B]`.
      zoom: the frame's side is 1 / (1 + zoom) to 1 + zoom of the picture's, each side again by up to the root of that,
        and its centre moves by up to half of `zoom`.
      blur: half of the pictures are blurred, by a triangle of up to an eighth of the side to each side.
      size: side S of the result, pixels.

    Returns:
      uint8 `[B, S, S, 3]`.
    """
    height, width = images.shape[1:3]

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        drawn = jax.random.uniform(key, (6,), minval=-1.0)
        lengths = jnp.array([height, width], jnp.float32)
        side = lengths * jnp.exp(jnp.log1p(zoom) * (drawn[0] + jnp.array([0.5, -0.5]) * drawn[1]))
        centre = lengths * (0.5 + zoom / 2 * drawn[2:4])
        softness = blur * _BLUR * jnp.where(drawn[4] > 0, (drawn[5] + 1) / 2, 0.0)
        return resample(image, size, places(side), places(centre - side / 2), places(softness * lengths), repeat=True)

    return whole(jax.vmap(one)(images, keys))


def lit(images: jax.Array, keys: jax.Array, strength: float) -> jax.Array:
    """Random gamma (a third to three at strength 1) and a shadow from a random side; uint8 `[B, H, W, 3]`."""
    height, width = images.shape[1:3]
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (3,), minval=-1.0))(keys)
    x = (images.astype(jnp.float32) / 255) ** per_picture(jnp.exp(strength * _GAMMA * drawn[:, 0]))
    down, across = jnp.linspace(-1, 1, height)[None, :, None, None], jnp.linspace(-1, 1, width)[None, None, :, None]
    slope = per_picture(drawn[:, 1]) * down + per_picture(drawn[:, 2]) * across
    return whole(255 * x * (1 + strength / 2 * slope))


def noisy(images: jax.Array, keys: jax.Array, strength: float) -> jax.Array:
    """Grey noise of a random deviation, most often little; uint8 `[B, H, W, 3]`."""
    height, width = images.shape[1:3]

    def one(key: jax.Array) -> jax.Array:
        amount, grain = jax.random.split(key)
        return _NOISE * strength * jax.random.uniform(amount) ** 2 * jax.random.normal(grain, (height, width, 1))

    return whole(images.astype(jnp.float32) + jax.vmap(one)(keys))
