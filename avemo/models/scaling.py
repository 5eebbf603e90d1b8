"""Scaling of images to a network's input range, and of channel counts to its small variants."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from avemo.ops.linear import Dtype


def scale_width(channels: int, width: float, divisor: int = 8) -> int:
    """Returns `channels` scaled by `width` to a multiple of `divisor`; unchanged at width 1.

    The published networks and their small variants differ in this number only. The rounding is MobileNet's
    (1704.04861): never less than 90 % of the exact value, never less than one `divisor`.
    """
    if width == 1.0:
        return channels
    exact = channels * width
    rounded = max(divisor, int(exact + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * exact else rounded


def scale_images(
    images: Num[Array, "b h w 3"], mean: Sequence[float], std: Sequence[float], dtype: Dtype
) -> Float[Array, "b h w 3"]:
    """Returns (images − mean) / std in `dtype`, computed in float32.

    Args:
      images: uint8 or float, RGB, 0..255.
      mean: one value, or one per channel, on the 0..255 scale.
      std: likewise.
      dtype: of the result.
    """
    shape = (1,) * (images.ndim - 1) + (-1,)
    centre, spread = (jnp.asarray(v, jnp.float32).reshape(shape) for v in (mean, std))
    return ((images.astype(jnp.float32) - centre) / spread).astype(dtype)
