"""Audio encoders by name: log-mel windows [B, 96, 64] -> embeddings [B, D]."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from avemo.models.construct import construct, dtype_of
from avemo.models.vggish import VGGish
from avemo.models.yamnet import YAMNet
from media.registry import Registry

AUDIO_ENCODERS: Registry[Callable] = Registry("audio encoder")
AUDIO_ENCODERS.register("vggish")(VGGish)
AUDIO_ENCODERS.register("yamnet")(YAMNet)

_NOT_NUMBERS = ("name", "dtype", "init_from", "freeze")  # the task's business, not the network's


def build(config: Mapping[str, Any]) -> nn.Module:
    """Builds the encoder `config["name"]`.

    Args:
      config: name ("vggish" or "yamnet"), dtype, and the encoder's own numbers (its attributes).

    Raises:
      UserError: for an unknown encoder or number.
    """
    name = config["name"]
    numbers = {key: value for key, value in config.items() if key not in _NOT_NUMBERS}
    factory = AUDIO_ENCODERS[name]
    dtype = dtype_of(config)
    return construct(f"audio encoder {name!r}", factory, numbers, dtype=dtype)
