"""Fusion, time and heads: per-frame features of both modalities to valence and arousal, and/or emotion logits.

The system of arXiv 2103.09154 is `fusion="model_level"` with a recurrent network over the joint sequence. The config
names any other strategy of `avemo.models.fusion` and temporal model of `avemo.models.temporal`.

    audio [B, T, Da] ─┐
                      ├─ fusion [B, T, D] ─ temporal model [B, T, H] ─ heads: traces [B, T, 2], logits [B, T, C]
    visual [B, T, Dv] ┘
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Bool, Float

from avemo.models.from_config import module_fields, network_fields
from avemo.models.fusion import ModelLevel, build_fusion
from avemo.models.temporal import build_temporal
from avemo.ops.dropout import Dropout, example_keys
from avemo.ops.linear import Dense
from media.errors import UserError, unknown

OUTPUTS = ("traces", "rater_traces", "logits")
MODALITIES = ("audio", "visual")


class AudioVisual(nn.Module):
    """Two modalities' frames to traces.

    Attributes:
      fusion: name in `FUSIONS`.
      fusion_args: its fields.
      temporal: name in `TEMPORALS`.
      temporal_args: its fields.
      num_classes: C of the emotion head; 0 for no such head.
      traces: whether there is a valence/arousal head; None: only without an emotion head, because no loss would read
        it.
      num_raters: number of heads R, one per rater; `traces` is then their mean. 0: one head.
      dropout: rate on the joint representation and on the hidden states.
      modality_dropout: in training, the probability that an example loses one of its modalities. Both are equally
        likely; an example with a single modality keeps it.
      missing: what replaces the frames of an absent modality: "zero", or "token", a learned vector.
      dtype: compute dtype; parameters and outputs are float32.
    """

    fusion: str = "model_level"
    fusion_args: Mapping[str, Any] = FrozenDict()
    temporal: str = "gru"
    temporal_args: Mapping[str, Any] = FrozenDict()
    num_classes: int = 0
    traces: bool | None = None
    num_raters: int = 0
    dropout: float = 0.0
    modality_dropout: float = 0.0
    missing: str = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        audio: Float[Array, "b t da"],
        visual: Float[Array, "b t dv"],
        audio_mask: Bool[Array, "b t"],
        visual_mask: Bool[Array, "b t"],
        mask: Bool[Array, "b t"],
        train: bool = False,
        carry: Any = None,
    ) -> dict[str, Any]:
        """Runs a batch of sequences, or the next chunk of them.

        Args:
          audio: features of the sound.
          visual: features of the face.
          audio_mask: False for frames without sound, whose features are not read.
          visual_mask: False for frames without a face.
          mask: True on frames of the sequence; padding at the end.
          train: apply dropout; needs the rng "dropout" if a rate is not 0.
          carry: the carry that the previous chunk returned; None starts a sequence.

        Returns:
          traces [B, T, 2] (valence, arousal) if the model has that head; logits [B, T, C] if num_classes; rater_traces
          [B, T, R, 2] if num_raters; fused [B, T, D]; hidden [B, T, H]; gates [B, T, 2] (audio, visual) if the fusion
          has them; carry, None if the fusion or temporal model needs the whole sequence.
        """
        fuse: Any = build_fusion(self.fusion, self.fusion_args, dtype=self.dtype, name="fusion")
        if carry is not None and not fuse.streams:
            raise UserError(f"fusion {self.fusion!r} needs the whole sequence: it cannot continue from a carry")
        audio_mask, visual_mask = self._drop_modality(audio_mask & mask, visual_mask & mask, train)
        audio, audio_seen = self._fill("audio_token", audio, audio_mask, mask)
        visual, visual_seen = self._fill("visual_token", visual, visual_mask, mask)
        if fuse.level == "decision":
            return self._decide(fuse, audio, visual, audio_mask, visual_mask, mask, train, carry)

        arguments = {}
        if isinstance(fuse, ModelLevel):
            arguments = {"mask": mask, "carry": None if carry is None else carry["fusion"]}
        fused, extras = fuse(audio, visual, audio_seen, visual_seen, train, **arguments)
        hidden, temporal_carry = self._temporal("temporal", fused, mask, train, carry)
        carries = {"fusion": extras.pop("carry", () if fuse.streams else None), "temporal": temporal_carry}
        carry = None if any(c is None for c in carries.values()) else carries
        return {**self._heads("", hidden), "fused": fused, "hidden": hidden, "carry": carry, **extras}

    def _decide(
        self,
        late: Any,
        audio: jax.Array,
        visual: jax.Array,
        audio_mask: jax.Array,
        visual_mask: jax.Array,
        mask: jax.Array,
        train: bool,
        carry: Any,
    ) -> dict[str, Any]:
        """Decision level: an encoder, temporal model and heads per modality, then a mean of their predictions."""
        each: dict[str, dict[str, jax.Array]] = {}
        carries: dict[str, Any] = {}
        hidden, encoded = [], []
        for name, x, seen in (("audio", audio, audio_mask), ("visual", visual, visual_mask)):
            x = jnp.where((mask if self.missing == "token" else seen)[:, :, None], x, 0)
            x = nn.relu(Dense(late.features, dtype=self.dtype, name=f"{name}_encoder")(x)).astype(jnp.float32)
            h, carries[name] = self._temporal(f"{name}_temporal", x, mask, train, carry, key=name)
            each[name] = self._heads(f"{name}_", h)
            encoded.append(x)
            hidden.append(h)
        outputs = list(each["audio"])
        sizes = [each["audio"][key].reshape(*mask.shape, -1).shape[-1] for key in outputs]
        joined = [jnp.concatenate([each[m][k].reshape(*mask.shape, -1) for k in outputs], -1) for m in MODALITIES]
        fused, extras = late(*joined, audio_mask, visual_mask, train)
        pieces = jnp.split(fused, [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)], axis=-1)
        decided = {key: piece.reshape(each["audio"][key].shape) for key, piece in zip(outputs, pieces, strict=True)}
        return {
            **decided,
            "fused": jnp.concatenate(encoded, -1),
            "hidden": jnp.concatenate(hidden, -1),
            "carry": None if any(c is None for c in carries.values()) else carries,
            **extras,
        }

    def _temporal(
        self, name: str, x: jax.Array, mask: jax.Array, train: bool, carry: Any, key: str = "temporal"
    ) -> tuple[jax.Array, Any]:
        dropout = Dropout(self.dropout, deterministic=not train)
        model = build_temporal(self.temporal, self.temporal_args, dtype=self.dtype, name=name)
        hidden, carry = model(dropout(x), mask, train, None if carry is None else carry[key])
        return dropout(hidden.astype(jnp.float32)), carry

    def _heads(self, prefix: str, hidden: jax.Array) -> dict[str, jax.Array]:
        # Float32 whatever the compute dtype, since losses read small differences of traces.
        outputs = {}
        traces = not self.num_classes if self.traces is None else self.traces
        if traces and self.num_raters:
            raters = nn.Dense(2 * self.num_raters, name=f"{prefix}rater_traces")(hidden)
            outputs["rater_traces"] = raters.reshape(*hidden.shape[:2], self.num_raters, 2)
            outputs["traces"] = outputs["rater_traces"].mean(-2)
        elif traces:
            outputs["traces"] = nn.Dense(2, name=f"{prefix}traces")(hidden)
        if self.num_classes:
            outputs["logits"] = nn.Dense(self.num_classes, name=f"{prefix}logits")(hidden)
        return outputs

    def _fill(self, name: str, x: jax.Array, seen: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the frames, with 0 or a learned token for absent ones, and which of them a fusion may read."""
        if self.missing == "zero":
            return jnp.where(seen[:, :, None], x, 0.0), seen
        if self.missing != "token":
            raise unknown("missing", self.missing, ("zero", "token"))
        token = self.param(name, nn.initializers.normal(0.02), (x.shape[-1],), jnp.float32).astype(x.dtype)
        x = jnp.where(seen[:, :, None], x, jnp.broadcast_to(token, x.shape))
        return jnp.where(mask[:, :, None], x, 0.0), mask

    def _drop_modality(self, audio: jax.Array, visual: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Masks one modality of some examples, but never an example's only one."""
        if not train or not self.modality_dropout:
            return audio, visual
        keys = example_keys(self.make_rng("dropout"), audio.shape[0])
        draw = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
        drop = (draw[:, 0] < self.modality_dropout) & audio.any(1) & visual.any(1)
        is_audio = draw[:, 1] < 0.5
        return audio & ~(drop & is_audio)[:, None], visual & ~(drop & ~is_audio)[:, None]


def build(config: Mapping[str, Any]) -> AudioVisual:
    """Builds the model from a config whose keys are `AudioVisual`'s attributes, with `dtype` as a string.

    Raises:
      UserError: for an unknown key, fusion or temporal model, or an unknown field of either.
    """
    model = AudioVisual(**network_fields("field of model", config, module_fields(AudioVisual)))
    if model.missing not in ("zero", "token"):
        raise unknown("missing", model.missing, ("zero", "token"))
    # Built only to report a misspelt field before any data is read; `parent=None` detaches them from the model.
    build_fusion(model.fusion, model.fusion_args, parent=None)
    build_temporal(model.temporal, model.temporal_args, parent=None)
    return model
