"""Audio encoders by name: log-mel windows [B, 96, 64] -> embeddings [B, D]."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from avemo.models.from_config import module_fields, network_fields
from avemo.models.vggish import VGGish
from avemo.models.yamnet import YAMNet
from media.registry import Registry

AUDIO_ENCODERS: Registry[Callable] = Registry("audio encoder")
AUDIO_ENCODERS.register("vggish")(VGGish)
AUDIO_ENCODERS.register("yamnet")(YAMNet)


def build(config: Mapping[str, Any]) -> nn.Module:
    """Builds the encoder `config["name"]`.

    Args:
      config: `name` ("vggish" or "yamnet"), `dtype`, and the encoder's own fields (its attributes).

    Raises:
      UserError: for an unknown encoder or field.
    """
    name = config["name"]
    encoder = AUDIO_ENCODERS[name]
    return encoder(**network_fields(f"argument of audio encoder {name!r}", config, module_fields(encoder)))
