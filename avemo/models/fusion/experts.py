"""A product of experts: the fusion of two classifiers that learned apart."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.models.fusion.base import Extras, Frames, Fusion, Mask
from media.errors import UserError


class Experts(Fusion):
    """log p = w_a · log p_a + w_v · log p_v + constant: Bayes' rule for classifiers of an even prior.

    `audio` and `visual` are the *logits* of both encoders, as they are (`data.standardise=off`). Each expert may have
    its own classes. A modality that is absent says nothing. There is no temporal model: frames are judged apart.

    Attributes:
      audio_classes, visual_classes: for each class of the output, the number of the expert's class that speaks for it.
      weights: initial w_a and w_v; they train.
    """

    audio_classes: tuple[int, ...] = ()
    visual_classes: tuple[int, ...] = ()
    weights: tuple[float, float] = (1.0, 1.0)

    level: ClassVar[str] = "expert"

    @nn.compact
    def __call__(self, *inputs: jax.Array, train: bool = False) -> tuple[Frames, Extras]:
        """(audio [B, T, Ca], visual [B, T, Cv], their masks) -> (logits [B, T, C], gates)."""
        (_, audio, audio_mask), (_, visual, visual_mask) = self.pairs(inputs)
        shares = self.param("weights", lambda _: jnp.asarray(self.weights, jnp.float32))
        masks = jnp.stack([audio_mask, visual_mask], -1).astype(jnp.float32)
        experts = ((audio, audio_mask, self.audio_classes), (visual, visual_mask, self.visual_classes))
        said = jnp.stack([_evidence(*expert) for expert in experts], 2)  # [B, T, 2, C]
        gates = masks * shares[None, None]
        total = jnp.maximum(jnp.abs(gates).sum(-1, keepdims=True), 1e-6)
        return (said * gates[..., None]).sum(2), {"gates": gates / total}


def _evidence(logits: Frames, mask: Mask, classes: tuple[int, ...]) -> jax.Array:
    """What one expert says of the output's classes, log-probabilities `[B, T, C]`; 0 where it is absent."""
    if not classes or min(classes) < 0 or max(classes) >= logits.shape[-1]:
        raise UserError(
            f"experts: {list(classes)} must name, for each class of the output, one of {logits.shape[-1]} classes: set "
            "model.fusion_args.audio_classes and visual_classes, and data.features to logits (extract --layer=logits)."
        )
    present = jnp.where(mask[..., None], logits, 0).astype(jnp.float32)
    return jnp.where(mask[..., None], jax.nn.log_softmax(present), 0)[..., jnp.array(classes)]
