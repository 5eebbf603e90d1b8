"""One modality, feature-level, decision-level and model-level fusion."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.models.fusion.base import Extras, Frames, Fusion, Mask, present
from avemo.models.temporal import build_temporal
from media.errors import UserError, unknown


class Audio(Fusion):
    """The audio alone, ReLU(W a): the unimodal row of the table. The visual input is not read."""

    @nn.compact
    def __call__(
        self, audio: Frames, visual: Frames, audio_mask: Mask, visual_mask: Mask, train: bool = False
    ) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        return self.join(present(audio, audio_mask)), {}


class Visual(Fusion):
    """The face alone, ReLU(W v): the unimodal row of the table. The audio input is not read."""

    @nn.compact
    def __call__(
        self, audio: Frames, visual: Frames, audio_mask: Mask, visual_mask: Mask, train: bool = False
    ) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        return self.join(present(visual, visual_mask)), {}


class Concat(Fusion):
    """Feature-level (early) fusion: ReLU(W [a; v]). MultiBench's ConcatEarly, arXiv 2107.07502."""

    @nn.compact
    def __call__(
        self, audio: Frames, visual: Frames, audio_mask: Mask, visual_mask: Mask, train: bool = False
    ) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        return self.join(present(audio, audio_mask), present(visual, visual_mask)), {}


class Late(Fusion):
    """Decision-level fusion: w_a·p_a + w_v·p_v of two models' predictions, w convex. MuSe challenge baselines.

    `audio` and `visual` are *predictions* of equal width. If one modality is masked, the other has weight 1. If both
    are, the weights do not change, because both models still predict from their states.

    Attributes:
      weights: "mean", "learned" (softmax of two logits per output dimension, starting at ½), or two fixed numbers
        (audio, visual), normalised to sum 1.
    """

    weights: str | tuple[float, float] = "learned"

    level: ClassVar[str] = "decision"

    @nn.compact
    def __call__(
        self, audio: Frames, visual: Frames, audio_mask: Mask, visual_mask: Mask, train: bool = False
    ) -> tuple[Frames, Extras]:
        """(audio [B, T, K], visual [B, T, K], …) -> ([B, T, K], gates averaged over K)."""
        width = audio.shape[-1]
        if isinstance(self.weights, tuple):
            if len(self.weights) != 2 or min(self.weights) < 0 or sum(self.weights) <= 0:
                raise UserError(f"late: weights={self.weights} must be two numbers ≥ 0, not both 0")
            share = jnp.broadcast_to(jnp.asarray(self.weights, jnp.float32)[:, None] / sum(self.weights), (2, width))
        elif self.weights == "learned":
            share = jax.nn.softmax(self.param("weights", nn.initializers.zeros_init(), (2, width), jnp.float32), axis=0)
        elif self.weights == "mean":
            share = jnp.full((2, width), 0.5, jnp.float32)
        else:
            raise unknown("late weights", self.weights, ("mean", "learned"))
        heard = jnp.stack([audio_mask, visual_mask], -1).astype(jnp.float32)  # [B, T, 2]
        heard = jnp.where(heard.sum(-1, keepdims=True) > 0, heard, 1.0)
        gates = heard[..., None] * share[None, None]
        total = gates.sum(2, keepdims=True)
        # If the only modality present has a fixed weight of 0, it still decides alone.
        gates = jnp.where(
            total > 0, gates / jnp.where(total > 0, total, 1.0), jnp.broadcast_to(heard[..., None], gates.shape)
        )
        # A prediction of weight 0 is not read at all: 0 · NaN would be NaN.
        both = jnp.stack([audio, visual], 2).astype(jnp.float32)
        fused = jnp.where(gates > 0, gates * jnp.where(gates > 0, both, 0.0), 0.0).sum(2)
        return fused, {"gates": gates.mean(-1)}


class ModelLevel(Fusion):
    """Model-level fusion: each modality has its own encoder, the hidden representations are joined, [h_a; h_v].

    Source: arXiv 2103.09154, which joins the deep features at model level before a recurrent network over the joint
    sequence (the temporal model of `AudioVisual`). That each modality's encoder is itself recurrent is our assumption;
    `encoder="dense"` is the alternative: ReLU(W x) per frame. D = 2 · features.

    Attributes:
      encoder: "dense", or a temporal model's name (`avemo.models.temporal`).
      encoder_args: its fields, except `features`.
    """

    encoder: str = "gru"
    encoder_args: Mapping[str, Any] | None = None

    @nn.compact
    def __call__(
        self,
        audio: Frames,
        visual: Frames,
        audio_mask: Mask,
        visual_mask: Mask,
        train: bool = False,
        mask: Mask | None = None,
        carry: dict[str, Any] | None = None,
    ) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`; `carry` holds one encoder carry each for audio and visual."""
        mask = audio_mask | visual_mask if mask is None else mask
        hidden: list[jax.Array] = []
        carries: dict[str, Any] = {}
        for name, x, seen in (("audio", audio, audio_mask), ("visual", visual, visual_mask)):
            x = present(x, seen)
            if self.encoder == "dense":
                h, carries[name] = nn.relu(self.dense(name)(x)), ()
            else:
                numbers = {**(self.encoder_args or {}), "features": self.features}
                encoder = build_temporal(self.encoder, numbers, dtype=self.dtype, name=name)
                h, carries[name] = encoder(x, mask, train, None if carry is None else carry[name])
            hidden.append(h.astype(jnp.float32))
        streams = all(c is not None for c in carries.values())
        return jnp.concatenate(hidden, -1), {"carry": carries if streams else None}
