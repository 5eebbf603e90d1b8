"""Augmentation inside the compiled training step: pure functions of a batch and one key per example.

The keys come from the seed, the step and the example's place in the global batch, so an example is augmented alike on
any number of devices and whichever way it reached them. Every strength is a share (0 to 1) of what the operation can
do, except SpecAugment's, which are rows and bands; 0 switches an operation off. Pictures hold whole numbers between
operations, as uint8 pictures do.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avemo.data import capture, sound_capture
from avemo.data.pixels import cut_off, per_picture, whole
from avemo.data.rand_augment import rand_augment
from avemo.data.resample import PLACES, resample
from media.errors import UserError

ERASED_AREA = (0.02, 0.33)  # share of the picture, and height over width: Zhong et al. 2017, arXiv 1708.04896
ERASED_ASPECT = (0.3, 1 / 0.3)
_DRAWN = 13  # bits of a crop's place: times the 64ths of 4,096 pixels they fit int32
_TRIES = 10  # a long rectangle may not fit: draw again, and finally leave the picture alone


def check(strength: Mapping[str, Any]) -> None:
    """Raises a `UserError` if a strength (`data.augment.*`) is out of range, before anything is read."""
    for name, value in strength.items():
        whole = name in ("operations", "spec_time", "spec_freq", "spec_shift")
        if value < 0 or (not whole and value > 1) or (name == "crop" and value == 1):
            allowed = "a number from 0" if whole else "a share from 0 to " + ("below 1" if name == "crop" else "1")
            raise UserError(f"data.augment.{name} is {value}: it takes {allowed}.")


def side_before_crop(size: int, strength: Mapping[str, Any]) -> int:
    """The side in pixels that a picture needs so that the smallest crop of it is not enlarged to `size`."""
    return math.ceil(round(size / (1 - strength.get("crop", 0.0)), 6))


def faces(images: jax.Array, keys: jax.Array, strength: Mapping[str, Any], size: int) -> jax.Array:
    """Applies everything that a config asks for to a batch of faces.

    The picture is cropped first, so that the costly part runs at the final size, and erased last, so that the noise is
    neither turned nor recoloured.

    Args:
      images: uint8 `[B, H, W, 3]` RGB.
      keys: `[B]`, one per example.
      strength: `crop`, `flip` (bool), `colour`, `operations` and `magnitude` (RandAugment), `erase`, and those of
        `capture`: `zoom`, `blur`, `light`, `noise`; absent = off.
      size: side S of the result, pixels.

    Returns:
      uint8 `[B, S, S, 3]`.
    """
    stages = jax.vmap(lambda key: jax.random.split(key, 5))(keys)  # [B, 5]
    x = images
    if strength.get("zoom") or strength.get("blur"):
        side = side_before_crop(size, strength)
        x = capture.framed(x, _further(keys, 5), strength.get("zoom", 0.0), strength.get("blur", 0.0), side)
    x = crop(x, stages[:, 0], strength.get("crop", 0.0), size)
    if strength.get("flip"):
        x = flip(x, stages[:, 1])
    if strength.get("colour"):
        x = colour(x, stages[:, 2], strength["colour"])
    if strength.get("operations"):
        x = rand_augment(x, stages[:, 3], strength["operations"], strength.get("magnitude", 0.0))
    if strength.get("light"):
        x = capture.lit(x, _further(keys, 6), strength["light"])
    if strength.get("noise"):
        x = capture.noisy(x, _further(keys, 7), strength["noise"])
    if strength.get("erase"):
        x = erase(x, stages[:, 4], strength["erase"])
    return x


def _further(keys: jax.Array, number: int) -> jax.Array:
    """Keys of a stage beyond the first five, whose keys stay what they were; `[B]`."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def crop(images: jax.Array, keys: jax.Array, strength: float, size: int) -> jax.Array:
    """Cuts out a random part, both sides shortened by the same share of up to `strength`, and resizes it to `size`.

    Linear interpolation, with antialiasing when shrinking. uint8 `[B, H, W, 3]` to uint8 `[B, S, S, 3]`.
    """
    height, width = images.shape[1:3]
    if not strength and (height, width) == (size, size):
        return images

    whole_side = PLACES * np.array([height, width], np.int32)
    most = np.round(strength * whole_side).astype(np.int32)

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        # Whole numbers throughout: rounding in floats could place a crop otherwise in another program.
        share, *place = (jax.random.uniform(key, (3,)) * 2**_DRAWN).astype(jnp.int32)
        side = whole_side - (most * share >> _DRAWN)
        return resample(image, size, side, (whole_side - side) * jnp.stack(place) >> _DRAWN)

    return whole(jax.vmap(one)(images, keys))


def flip(images: jax.Array, keys: jax.Array) -> jax.Array:
    """Mirrors half of the pictures left to right; uint8 `[B, H, W, 3]`."""
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(per_picture(mirrored), images[:, :, ::-1], images)


def colour(images: jax.Array, keys: jax.Array, strength: float) -> jax.Array:
    """Random gain (1 ± `strength`) and offset (± half of `strength` of the range); uint8 `[B, H, W, 3]`."""
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
    gain, bias = 1 + strength * (2 * drawn[:, 0] - 1), 255 * strength * (drawn[:, 1] - 0.5)
    return cut_off(images.astype(jnp.float32) * per_picture(gain) + per_picture(bias))


def erase(images: jax.Array, keys: jax.Array, probability: float) -> jax.Array:
    """Random erasing (arXiv 1708.04896): noise in a rectangle of `ERASED_AREA` and `ERASED_ASPECT`.

    Args:
      images: uint8 `[B, H, W, 3]`.
      keys: `[B]`.
      probability: of erasing a picture at all, 0 to 1.
    """
    height, width = images.shape[1:3]

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        chance, shape, place, noise = jax.random.split(key, 4)
        drawn = jax.random.uniform(shape, (_TRIES, 2))
        low, high = ERASED_AREA
        area = height * width * (low + (high - low) * drawn[:, 0])
        low, high = jnp.log(jnp.asarray(ERASED_ASPECT, jnp.float32))
        aspect = jnp.exp(low + (high - low) * drawn[:, 1])
        h, w = jnp.floor(jnp.sqrt(area * aspect)), jnp.floor(jnp.sqrt(area / aspect))
        fits = (h >= 1) & (h <= height) & (w >= 1) & (w <= width)
        first = jnp.argmax(fits)  # 0 where none fits
        h, w = h[first], w[first]
        free = jnp.array([height, width], jnp.float32) - jnp.stack([h, w])
        corner = jnp.floor(jax.random.uniform(place, (2,)) * (free + 1))
        y = jnp.arange(height, dtype=jnp.float32) - corner[0]
        x = jnp.arange(width, dtype=jnp.float32) - corner[1]
        inside = ((y >= 0) & (y < h))[:, None] & ((x >= 0) & (x < w))[None]
        inside &= fits.any() & jax.random.bernoulli(chance, probability)
        return jnp.where(inside[..., None], _random_bytes(noise, image.shape), image)

    return jax.vmap(one)(images, keys)


def _random_bytes(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform uint8, four from each word; `jax.random.bits` draws a word for each, most of erasing's time on a CPU."""
    count = math.prod(shape)
    words = jax.random.bits(key, (-(-count // 4),), jnp.uint32)
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:count].reshape(shape)


def windows(log_mel: jax.Array, keys: jax.Array, strength: Mapping[str, Any]) -> jax.Array:
    """Applies everything that a config asks for to a batch of clips.

    Args:
      log_mel: float32 `[B, N, rows, bands]`.
      keys: `[B]`, one per clip.
      strength: `spec_shift`, `spec_time`, `spec_freq`, and those of `sound_capture`; absent = off.

    Returns:
      float32 `[B, N, rows, bands]`.
    """
    stages = jax.vmap(jax.random.split)(keys)
    x = log_mel
    if any(strength.get(name) for name in sound_capture.NAMES):
        x = sound_capture.varied(x, _further(keys, 2), strength)
    x = shift_bands(x, stages[:, 0], strength.get("spec_shift", 0))
    return spec_augment(x, stages[:, 1], strength.get("spec_time", 0), strength.get("spec_freq", 0))


def shift_bands(log_mel: jax.Array, keys: jax.Array, widest: int) -> jax.Array:
    """Moves a clip's windows up or down by some bands, as another length of vocal tract and pitch would.

    A shift of mel bands where vocal tract length perturbation (Jaitly & Hinton 2013) warps the frequency axis. All
    windows of a clip move together, because they have one speaker.

    Args:
      log_mel: float32 `[B, N, rows, bands]`.
      keys: `[B]`.
      widest: most bands either way; the shift is a whole number, uniform.

    Returns:
      float32 `[B, N, rows, bands]`; the band at the edge fills what moves in.
    """
    if not widest:
        return log_mel
    bands = log_mel.shape[-1]
    shift = jax.vmap(lambda key: jax.random.randint(key, (), -widest, widest + 1))(keys)
    source = jnp.clip(jnp.arange(bands)[None] - shift[:, None], 0, bands - 1)
    return jax.vmap(lambda clip, index: clip[..., index])(log_mel, source)


def spec_augment(log_mel: jax.Array, keys: jax.Array, time: int, freq: int) -> jax.Array:
    """SpecAugment (arXiv 1904.08779) without time warping, which its authors found to matter least.

    Args:
      log_mel: float32 `[B, N, rows, bands]`; each window gets one mask along time and one along frequency.
      keys: `[B]`.
      time: T, the most rows that a mask spans; its width is uniform in 0 … T.
      freq: F, the same for bands.

    Returns:
      float32 `[B, N, rows, bands]`, masked by each window's own mean. A window without sound (zeros) stays as it is.
    """
    if not (time or freq):
        return log_mel

    def span(key: jax.Array, length: int, widest: int) -> jax.Array:
        width_key, start_key = jax.random.split(key)
        width = jax.random.randint(width_key, (), 0, min(widest, length) + 1)
        start = jax.random.randint(start_key, (), 0, length - width + 1)
        place = jnp.arange(length)
        return (place >= start) & (place < start + width)

    def one(window: jax.Array, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key)
        rows, bands = (span(k, n, w) for k, n, w in zip(keys, window.shape, (time, freq), strict=True))
        return jnp.where(rows[:, None] | bands[None], window.mean(), window)

    each = jax.vmap(lambda key: jax.random.split(key, log_mel.shape[1]))(keys)
    return jax.vmap(jax.vmap(one))(log_mel, each)
