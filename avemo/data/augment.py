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

from media.errors import UserError

ERASED_AREA = (0.02, 0.33)  # share of the picture, and height over width: Zhong et al. 2017, arXiv 1708.04896
ERASED_ASPECT = (0.3, 1 / 0.3)
_TRIES = 10  # a long rectangle may not fit: draw again, and finally leave the picture alone
_GREY = 128.0  # fills what geometry moves in from outside, as RandAugment's authors do

# The fourteen operations of RandAugment (arXiv 1909.13719, section 3.1). The largest magnitudes are AutoAugment's
# (arXiv 1805.09501, table 6), which the paper uses.
OPERATIONS = (
    "identity",
    "auto_contrast",
    "equalise",
    "rotate",
    "solarise",
    "saturation",
    "posterise",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)


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
      strength: `crop`, `flip` (bool), `colour`, `operations` and `magnitude` (RandAugment), `erase`; absent = off.
      size: side S of the result, pixels.

    Returns:
      uint8 `[B, S, S, 3]`.
    """
    stages = jax.vmap(lambda key: jax.random.split(key, 5))(keys)  # [B, 5]
    x = crop(images, stages[:, 0], strength.get("crop", 0.0), size)
    if strength.get("flip"):
        x = flip(x, stages[:, 1])
    if strength.get("colour"):
        x = colour(x, stages[:, 2], strength["colour"])
    if strength.get("operations"):
        x = rand_augment(x, stages[:, 3], strength["operations"], strength.get("magnitude", 0.0))
    if strength.get("erase"):
        x = erase(x, stages[:, 4], strength["erase"])
    return x


def crop(images: jax.Array, keys: jax.Array, strength: float, size: int) -> jax.Array:
    """Cuts out a random part, both sides shortened by the same share of up to `strength`, and resizes it to `size`.

    Linear interpolation, with antialiasing when shrinking. uint8 `[B, H, W, 3]` to uint8 `[B, S, S, 3]`.
    """
    height, width = images.shape[1:3]
    if not strength and (height, width) == (size, size):
        return images

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        share, y, x = jax.random.uniform(key, (3,))
        side = 1 - strength * share
        scale = size / (side * jnp.array([height, width], jnp.float32))
        corner = (1 - side) * jnp.stack([y * height, x * width])
        return jax.image.scale_and_translate(
            image.astype(jnp.float32), (size, size, 3), (0, 1), scale, -corner * scale, "linear", antialias=True
        )

    return _whole(jax.vmap(one)(images, keys))


def flip(images: jax.Array, keys: jax.Array) -> jax.Array:
    """Mirrors half of the pictures left to right; uint8 `[B, H, W, 3]`."""
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(_each(mirrored), images[:, :, ::-1], images)


def colour(images: jax.Array, keys: jax.Array, strength: float) -> jax.Array:
    """Random gain (1 ± `strength`) and offset (± half of `strength` of the range); uint8 `[B, H, W, 3]`."""
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
    gain, bias = 1 + strength * (2 * drawn[:, 0] - 1), 255 * strength * (drawn[:, 1] - 0.5)
    return _cut_off(images.astype(jnp.float32) * _each(gain) + _each(bias))


def erase(images: jax.Array, keys: jax.Array, probability: float) -> jax.Array:
    """Random erasing (arXiv 1708.04896): noise in a rectangle of `ERASED_AREA` and `ERASED_ASPECT`.

    Args:
      images: uint8 `[B, H, W, 3]`.
      keys: `[B]`.
      probability: of erasing a picture at all, 0 to 1.
    """
    height, width, channels = images.shape[1:]

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
        return jnp.where(inside[..., None], jax.random.bits(noise, (height, width, channels), jnp.uint8), image)

    return jax.vmap(one)(images, keys)


def rand_augment(images: jax.Array, keys: jax.Array, operations: int, magnitude: float) -> jax.Array:
    """RandAugment (arXiv 1909.13719): `operations` of `OPERATIONS` in a row, drawn per picture, at one magnitude.

    Args:
      images: uint8 `[B, H, W, 3]` RGB.
      keys: `[B]`.
      operations: the paper's N.
      magnitude: 0 to 1 for the paper's M of 0 to 10.

    Returns:
      uint8 `[B, H, W, 3]`.
    """
    for number in range(operations):
        drawn = jax.vmap(lambda key, n=number: jax.random.fold_in(key, n))(keys)
        which = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(OPERATIONS)))(drawn)
        positive = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1)))(drawn)
        images = operate(images, which, jnp.where(positive, magnitude, -magnitude))
    return images


def operate(images: jax.Array, which: jax.Array, m: jax.Array) -> jax.Array:
    """Applies one of `OPERATIONS` to each picture.

    Pictures differ in their operation, so every kind of operation runs on all pictures, with parameters that leave
    alone the pictures it is not meant for: a table of 256 values, two blends and one affine map.

    Args:
      images: uint8 `[B, H, W, 3]` RGB.
      which: int `[B]`, index into `OPERATIONS`.
      m: float32 `[B]`, -1 to 1: its size is the magnitude, its sign the direction.

    Returns:
      uint8 `[B, H, W, 3]`.
    """
    is_ = {name: which == number for number, name in enumerate(OPERATIONS)}
    grey = _grey(images)
    x = _look_up(_tables(images, grey, is_, m), images)
    x = _blend(jnp.broadcast_to(grey[..., None], x.shape), x, jnp.where(is_["saturation"], 1 + 0.9 * m, 1.0))
    x = _blend(_smooth(x), x, jnp.where(is_["sharpness"], 1 + 0.9 * m, 1.0))
    moved = is_["rotate"] | is_["shear_x"] | is_["shear_y"] | is_["translate_x"] | is_["translate_y"]
    return jnp.where(_each(moved), jax.vmap(_affine)(x, *_maps(is_, m, *images.shape[1:3])), x)


def _tables(images: jax.Array, grey: jax.Array, is_: Mapping[str, jax.Array], m: jax.Array) -> jax.Array:
    """What becomes of each value: uint8 `[B, 3, 256]`, the identity for operations that are no function of a value."""
    values = jnp.arange(256, dtype=jnp.float32)[None, None]
    factor, size = (1 + 0.9 * m)[:, None, None], jnp.abs(m)[:, None, None]
    mean = jnp.round(grey.astype(jnp.float32).mean((1, 2)))[:, None, None]
    low, high = (f(images, axis=(1, 2)).astype(jnp.float32)[..., None] for f in (jnp.min, jnp.max))
    stretched = _cut_off((values - low) * 255 / jnp.maximum(high - low, 1))
    step = jnp.exp2(jnp.round(4 * size))
    tables = {
        "auto_contrast": jnp.where(high > low, stretched, values.astype(jnp.uint8)),
        "equalise": _equalised(images),
        "solarise": jnp.where(values > 255 * (1 - size), 255 - values, values),
        "posterise": jnp.floor(values / step) * step,
        "contrast": _cut_off(mean + factor * (values - mean)),
        "brightness": _cut_off(values * factor),
    }
    out = jnp.broadcast_to(values.astype(jnp.uint8), (*images.shape[:1], 3, 256))
    for name, table in tables.items():
        out = jnp.where(is_[name][:, None, None], table.astype(jnp.uint8), out)
    return out


def _equalised(images: jax.Array) -> jax.Array:
    """Histogram equalisation's table of each channel, uint8 `[B, 3, 256]` (OpenCV's `equalizeHist`)."""
    counts = _histograms(images)
    total, seen = counts.sum(-1, keepdims=True), jnp.cumsum(counts, -1)
    darkest = jnp.take_along_axis(counts, jnp.argmax(counts > 0, -1)[..., None], -1)
    flat = darkest == total
    table = jnp.round((seen - darkest) * 255 / jnp.where(flat, 1, total - darkest))
    return jnp.where(flat, jnp.arange(256, dtype=jnp.float32), jnp.clip(table, 0, 255)).astype(jnp.uint8)


def _histograms(images: jax.Array) -> jax.Array:
    """Counts of each value by channel, float32 `[B, 3, 256]`.

    A value is 16 · high + low, and the counts are a product of one-hot halves: accelerators have no fast scatter.
    """
    pixels = images.reshape(len(images), -1, 3)
    high, low = ((jax.nn.one_hot(half, 16, dtype=jnp.bfloat16)) for half in (pixels >> 4, pixels & 15))
    counts = jnp.einsum("bpch,bpcl->bchl", high, low, preferred_element_type=jnp.float32)
    return counts.reshape(len(images), 3, 256)


def _maps(is_: Mapping[str, jax.Array], m: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Where each picture's pixels come from: `[B, 2, 2]` about the centre and a shift `[B, 2]`, both for (x, y)."""
    angle = jnp.radians(jnp.where(is_["rotate"], 30 * m, 0.0))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    shear_x, shear_y = (jnp.where(is_[f"shear_{axis}"], 0.3 * m, 0.0) for axis in "xy")
    # The inverses of a rotation and of shears: at most one of the three is not the identity.
    matrix = jnp.stack([jnp.stack([cos, -sin - shear_x], -1), jnp.stack([sin - shear_y, cos], -1)], -2)
    shift_x, shift_y = (
        jnp.where(is_[f"translate_{axis}"], 150 / 331 * m * side, 0.0) for axis, side in (("x", width), ("y", height))
    )
    return matrix, -jnp.stack([shift_x, shift_y], -1)


def _affine(image: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
    """Bilinear resampling of uint8 `[H, W, 3]`; grey beyond the edge."""
    height, width = image.shape[:2]
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    y, x = jnp.meshgrid(
        jnp.arange(height, dtype=jnp.float32) - middle_y, jnp.arange(width, dtype=jnp.float32) - middle_x, indexing="ij"
    )
    source_x = matrix[0, 0] * x + matrix[0, 1] * y + middle_x + shift[0]
    source_y = matrix[1, 0] * x + matrix[1, 1] * y + middle_y + shift[1]
    left, top = jnp.floor(source_x), jnp.floor(source_y)
    share_x, share_y = source_x - left, source_y - top
    flat, out = image.reshape(-1, 3).astype(jnp.float32), jnp.zeros(image.shape, jnp.float32)
    for right in (0, 1):
        for down in (0, 1):
            column, row = left.astype(jnp.int32) + right, top.astype(jnp.int32) + down
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
            weight = (share_x if right else 1 - share_x) * (share_y if down else 1 - share_y)
            out = out + weight[..., None] * jnp.where(inside[..., None], flat[index], _GREY)
    return _whole(out)


def _look_up(tables: jax.Array, images: jax.Array) -> jax.Array:
    one = jax.vmap(lambda table, channel: table[channel])  # over channels
    return jax.vmap(lambda table, image: one(table, image.transpose(2, 0, 1)).transpose(1, 2, 0))(
        tables, images.astype(jnp.int32)
    )


def _grey(images: jax.Array) -> jax.Array:
    """ITU-R 601 luma in OpenCV's integers: uint8 `[B, H, W]`."""
    red, green, blue = (images[..., channel].astype(jnp.int32) for channel in range(3))
    return ((4899 * red + 9617 * green + 1868 * blue + 8192) >> 14).astype(jnp.uint8)


def _smooth(images: jax.Array) -> jax.Array:
    """The 3 × 3 mean with a weight of 5 in the centre that PIL's sharpness blends with; uint8."""
    height, width = images.shape[1:3]
    padded = jnp.pad(images.astype(jnp.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:, :height] + padded[:, 1 : height + 1] + padded[:, 2:]
    total = rows[:, :, :width] + rows[:, :, 1 : width + 1] + rows[:, :, 2:]
    return _whole((total + 4 * images.astype(jnp.float32)) / 13)


def _blend(other: jax.Array, images: jax.Array, factor: jax.Array) -> jax.Array:
    """`other` where factor is 0, `images` where it is 1, extrapolated beyond; uint8."""
    factor = _each(factor)
    return _whole(images.astype(jnp.float32) * factor + other.astype(jnp.float32) * (1 - factor))


def _whole(x: jax.Array) -> jax.Array:
    return jnp.clip(jnp.round(x), 0, 255).astype(jnp.uint8)


def _cut_off(x: jax.Array) -> jax.Array:
    return jnp.clip(x, 0, 255).astype(jnp.uint8)


def _each(x: jax.Array) -> jax.Array:
    """One value per example, shaped to broadcast over pictures."""
    return x[:, None, None, None]


def windows(log_mel: jax.Array, keys: jax.Array, strength: Mapping[str, Any]) -> jax.Array:
    """Applies everything that a config asks for to a batch of clips.

    Args:
      log_mel: float32 `[B, N, rows, bands]`.
      keys: `[B]`, one per clip.
      strength: `spec_shift`, `spec_time`, `spec_freq`; absent = off.

    Returns:
      float32 `[B, N, rows, bands]`.
    """
    stages = jax.vmap(jax.random.split)(keys)
    x = shift_bands(log_mel, stages[:, 0], strength.get("spec_shift", 0))
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
