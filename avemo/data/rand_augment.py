"""RandAugment (arXiv 1909.13719) inside the compiled step: each picture draws its own operations."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from avemo.data.pixels import cut_off, per_picture, whole

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

    Args:
      images: uint8 `[B, H, W, 3]` RGB.
      which: int `[B]`, index into `OPERATIONS`.
      m: float32 `[B]`, -1 to 1: its size is the magnitude, its sign the direction.

    Returns:
      uint8 `[B, H, W, 3]`.
    """
    return jax.lax.platform_dependent(images, which, m, cpu=one_by_one, default=all_at_once)


def all_at_once(images: jax.Array, which: jax.Array, m: jax.Array) -> jax.Array:
    """Runs every kind of operation on all pictures, with parameters that leave alone those it is not meant for.

    The kinds are a table of 256 values, two blends and one affine map.
    """
    is_ = _flags(which)
    tables = jnp.where(is_["equalise"][:, None, None], _equalised(images), _tables(images, is_, m))
    x = _blended(_look_up(tables, images), is_, m)
    return jnp.where(per_picture(_moves(is_)), _moved(x, is_, m), x)


def one_by_one(images: jax.Array, which: jax.Array, m: jax.Array) -> jax.Array:
    """Runs the kind of operation that each picture asks for, one picture after another: less work, all on one core."""
    is_ = _flags(which)
    blends = is_["saturation"] | is_["sharpness"]
    kind = jnp.where(is_["equalise"], 1, jnp.where(blends, 2, jnp.where(_moves(is_), 3, 0)))
    kinds = (
        lambda x, is_, m: _look_up(_tables(x, is_, m), x),
        lambda x, is_, m: _look_up(_equalised(x), x),
        _blended,
        _moved,
    )

    def one(picture: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        kind, x, which, m = picture
        return jax.lax.switch(kind, kinds, x[None], _flags(which[None]), m[None])[0]

    return jax.lax.map(one, (kind, images, which, m))


def _flags(which: jax.Array) -> dict[str, jax.Array]:
    return {name: which == number for number, name in enumerate(OPERATIONS)}


def _moves(is_: Mapping[str, jax.Array]) -> jax.Array:
    return is_["rotate"] | is_["shear_x"] | is_["shear_y"] | is_["translate_x"] | is_["translate_y"]


def _moved(images: jax.Array, is_: Mapping[str, jax.Array], m: jax.Array) -> jax.Array:
    return jax.vmap(_affine)(images, *_maps(is_, m, *images.shape[1:3]))


def _blended(images: jax.Array, is_: Mapping[str, jax.Array], m: jax.Array) -> jax.Array:
    grey = jnp.broadcast_to(_grey(images)[..., None], images.shape)
    x = _blend(grey, images, jnp.where(is_["saturation"], 1 + 0.9 * m, 1.0))
    return _blend(_smooth(x), x, jnp.where(is_["sharpness"], 1 + 0.9 * m, 1.0))


def _tables(images: jax.Array, is_: Mapping[str, jax.Array], m: jax.Array) -> jax.Array:
    """What becomes of each value: uint8 `[B, 3, 256]`, the identity for operations that are no function of a value.

    Equalising is none of these, because its table takes a histogram.
    """
    grey = _grey(images)
    values = jnp.arange(256, dtype=jnp.float32)[None, None]
    factor, size = (1 + 0.9 * m)[:, None, None], jnp.abs(m)[:, None, None]
    mean = jnp.round(grey.astype(jnp.float32).mean((1, 2)))[:, None, None]
    # In whole numbers: XLA may divide by multiplying with the inverse, which misses a whole quotient by a rounding.
    low, high = (f(images, axis=(1, 2)).astype(jnp.int32)[..., None] for f in (jnp.min, jnp.max))
    stretched = cut_off((values.astype(jnp.int32) - low) * 255 // jnp.maximum(high - low, 1))
    step = jnp.exp2(jnp.round(4 * size))
    tables = {
        "auto_contrast": jnp.where(high > low, stretched, values.astype(jnp.uint8)),
        "solarise": jnp.where(values > 255 * (1 - size), 255 - values, values),
        "posterise": jnp.floor(values / step) * step,
        "contrast": cut_off(mean + factor * (values - mean)),
        "brightness": cut_off(values * factor),
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
    """Counts of each value by channel, float32 `[B, 3, 256]`."""
    return jax.lax.platform_dependent(
        images.reshape(len(images), -1, 3), cpu=counted_one_by_one, default=counted_by_products
    )


def counted_one_by_one(pixels: jax.Array) -> jax.Array:
    """Counts of each value of uint8 `[B, pixels, channels]`, float32 `[B, channels, 256]`."""
    count = jax.vmap(lambda values: jnp.zeros(256, jnp.float32).at[values].add(1.0), 1)
    return jax.vmap(count)(pixels.astype(jnp.int32))


def counted_by_products(pixels: jax.Array) -> jax.Array:
    """The same; a value is 16 · high + low, and the counts are a product of one-hot halves.

    Accelerators have no fast scatter.
    """
    high, low = ((jax.nn.one_hot(half, 16, dtype=jnp.bfloat16)) for half in (pixels >> 4, pixels & 15))
    counts = jnp.einsum("bpch,bpcl->bchl", high, low, preferred_element_type=jnp.float32)
    return counts.reshape(len(pixels), 3, 256)


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
    return whole(out)


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
    return whole((total + 4 * images.astype(jnp.float32)) / 13)


def _blend(other: jax.Array, images: jax.Array, factor: jax.Array) -> jax.Array:
    """`other` where factor is 0, `images` where it is 1, extrapolated beyond; uint8."""
    factor = per_picture(factor)
    return whole(images.astype(jnp.float32) * factor + other.astype(jnp.float32) * (1 - factor))
