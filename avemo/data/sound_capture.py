"""Voices as speakers, rooms and devices vary them, on log-mel windows inside the compiled training step.

Pure functions of a batch and one key per clip, as in `augment`: all windows of a clip have one speaker, one room and
one device. Every strength is a share, 0 to 1. Windows without sound (zeros) stay as they are.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from media.audio import LOG_OFFSET

NAMES = ("speed", "level", "noise", "tilt", "room")
_SPEED = 0.5  # log of the largest change of tempo at strength 1: slower or faster by 1.65
_LEVEL = 2.3  # log of the largest gain: 20 dB
_TILT = 2.3  # log of the largest gain of a band
_TAIL = 40.0  # longest time in rows of 10 ms in which a room's echo falls to 1 / e


def varied(log_mel: jax.Array, keys: jax.Array, strength: Mapping[str, Any]) -> jax.Array:
    """Changes tempo, room, device, level and background of each clip.

    Args:
      log_mel: float32 `[B, N, rows, bands]`, ln(mel + `LOG_OFFSET`).
      keys: `[B]`, one per clip.
      strength: `speed`, `level`, `noise`, `tilt`, `room`; absent = off.

    Returns:
      float32 `[B, N, rows, bands]`.
    """
    rows, bands = log_mel.shape[-2:]
    speed, level, noise, tilt, room = (float(strength.get(name, 0.0)) for name in NAMES)

    def one(clip: jax.Array, key: jax.Array) -> jax.Array:
        shape_key, grain_key = jax.random.split(key)
        drawn = jax.random.uniform(shape_key, (9,), minval=-1.0)
        share = (drawn + 1) / 2
        mel = jnp.maximum(jnp.exp(clip) - LOG_OFFSET, 0.0)
        mel = jnp.einsum("st,tr,nrb->nsb", _echo(rows, room * share[0], share[1]), _tempo(rows, speed * drawn[2]), mel)
        band = jnp.linspace(-1.0, 1.0, bands)
        curve = _TILT * tilt * (drawn[3] * band + drawn[4] * jnp.cos(jnp.pi * (band + drawn[5]))) / 2
        mel = mel * jnp.exp(curve + _LEVEL * level * drawn[6])[None, None]
        loud = mel.mean() * noise * share[7] ** 2 * jnp.exp(drawn[8] * band)
        grain = jnp.abs(jax.random.normal(grain_key, mel.shape))
        return jnp.where(
            (clip == 0).all((1, 2), keepdims=True), clip, jnp.log(mel + loud[None, None] * grain + LOG_OFFSET)
        )

    return jax.vmap(one)(log_mel, keys)


def _tempo(rows: int, change: jax.Array) -> jax.Array:
    """Weights `[rows, rows]` of linear interpolation about the middle; the first and last row repeat beyond the end."""
    row, middle = jnp.arange(rows, dtype=jnp.float32), (rows - 1) / 2
    source = jnp.clip((row - middle) * jnp.exp(_SPEED * change) + middle, 0, rows - 1)
    return jnp.maximum(0.0, 1 - jnp.abs(source[:, None] - row[None]))


def _echo(rows: int, amount: jax.Array, length: jax.Array) -> jax.Array:
    """Weights `[rows, rows]` of a decaying tail over earlier rows, beside the direct sound."""
    row = jnp.arange(rows, dtype=jnp.float32)
    lag = row[:, None] - row[None]
    tail = jnp.where(lag >= 0, jnp.exp(-jnp.maximum(lag, 0) / (1 + _TAIL * length)), 0.0)
    return jnp.eye(rows) + amount * tail / tail[-1].sum()
