"""An audio encoder with a linear head, from `config.model`."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from avemo.models import audio_encoders
from avemo.models.from_config import module_fields
from avemo.ops.dropout import Dropout


class AudioRegressor(nn.Module):
    """An audio encoder with linear heads.

    Attributes:
      encoder: maps windows `[B, 96, 64]` to embeddings `[B, D]`.
      num_classes: length of `logits`; 0 for valence and arousal.
      dropout: rate between the embedding and the head.
    """

    encoder: nn.Module
    num_classes: int = 0
    dropout: float = 0.0

    @nn.compact
    def __call__(self, windows: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Maps windows `[B, 96, 64]` to `embedding` `[B, D]` and `traces` `[B, 2]` or `logits` `[B, C]`, float32."""
        embedding = self.encoder(windows, train).astype(jnp.float32)
        name, size = ("logits", self.num_classes) if self.num_classes else ("traces", 2)
        hidden = Dropout(self.dropout, deterministic=not train)(nn.relu(embedding))
        return {"embedding": embedding, name: nn.Dense(size, name="head")(hidden)}


def build(config: ConfigDict) -> AudioRegressor:
    """Builds the network that `config.model` describes.

    Args:
      config: the encoder's own fields, `num_classes` and `dropout`.
    """
    own = module_fields(AudioRegressor) - {"encoder"}
    encoder = audio_encoders.build({name: value for name, value in config.items() if name not in own})
    return AudioRegressor(encoder, config.num_classes, config.get("dropout", 0.0))
