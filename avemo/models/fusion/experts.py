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
    its own classes. A modality that is absent says nothing. There is no temporal model: frames are judged apart. An
    expert that learned from uneven classes has their shares in its answers; its prior takes them out.

    Attributes:
      audio_classes, visual_classes: for each class of the output, the number of the expert's class that speaks for it.
      audio_prior, visual_prior: log-shares of the expert's classes that its logits still hold; () if they are even.
      weights: initial w_a and w_v; they train.
    """

    audio_classes: tuple[int, ...] = ()
    visual_classes: tuple[int, ...] = ()
    audio_prior: tuple[float, ...] = ()
    visual_prior: tuple[float, ...] = ()
    weights: tuple[float, float] = (1.0, 1.0)

    level: ClassVar[str] = "expert"

    @nn.compact
    def __call__(self, *inputs: jax.Array, train: bool = False) -> tuple[Frames, Extras]:
        """(audio [B, T, Ca], visual [B, T, Cv], their masks) -> (logits [B, T, C], gates)."""
        (_, audio, audio_mask), (_, visual, visual_mask) = self.pairs(inputs)
        shares = self.param("weights", lambda _: jnp.asarray(self.weights, jnp.float32))
        masks = jnp.stack([audio_mask, visual_mask], -1).astype(jnp.float32)
        experts = (
            (audio, audio_mask, self.audio_classes, self.audio_prior),
            (visual, visual_mask, self.visual_classes, self.visual_prior),
        )
        said = jnp.stack([_evidence(*expert) for expert in experts], 2)  # [B, T, 2, C]
        gates = masks * shares[None, None]
        total = jnp.maximum(jnp.abs(gates).sum(-1, keepdims=True), 1e-6)
        return (said * gates[..., None]).sum(2), {"gates": gates / total}


def _evidence(logits: Frames, mask: Mask, classes: tuple[int, ...], prior: tuple[float, ...]) -> jax.Array:
    """What one expert says of the output's classes: log-probabilities less its prior `[B, T, C]`, 0 if it is absent."""
    if not classes or min(classes) < 0 or max(classes) >= logits.shape[-1]:
        raise UserError(
            f"experts: {list(classes)} must name, for each class of the output, one of {logits.shape[-1]} classes: set "
            "model.fusion_args.audio_classes and visual_classes, and data.features to logits (extract --layer=logits)."
        )
    if prior and len(prior) != logits.shape[-1]:
        raise UserError(
            f"experts: {list(prior)} must have a number for each of {logits.shape[-1]} classes of the expert."
        )
    present = jnp.where(mask[..., None], logits, 0).astype(jnp.float32)
    shares = jnp.array(prior or (0.0,) * logits.shape[-1], jnp.float32)
    said = jax.nn.log_softmax(present) - shares[None, None]
    return jnp.where(mask[..., None], said, 0)[..., jnp.array(classes)]
