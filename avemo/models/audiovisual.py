"""Fusion, time and heads: per-frame features of both modalities to valence and arousal, and/or emotion logits.

The system of arXiv 2103.09154 is `fusion="model_level"` with a recurrent network over the joint sequence; every other
strategy of `avemo.models.fusion` and temporal model of `avemo.models.temporal` is a string of the config.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

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
      fusion_args: its numbers.
      temporal: name in `TEMPORALS`.
      temporal_args: its numbers.
      num_classes: C of the emotion head; 0 has none.
      traces: whether there is a valence/arousal head; by default only without an emotion head, since a head that no
        loss reads is dead weight.
      num_raters: R heads, one a rater; `traces` is then their mean. 0: one head.
      dropout: rate on the joint representation and on the hidden states.
      modality_dropout: in training, the probability that an example loses one of its modalities (either alike, never
        both; an example that has but one keeps it).
      missing: what stands in for an absent modality's frames: "zero", or "token", a learned vector.
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
        audio: jax.Array,
        visual: jax.Array,
        audio_mask: jax.Array,
        visual_mask: jax.Array,
        mask: jax.Array,
        train: bool = False,
        carry: Any = None,
    ) -> dict[str, Any]:
        """Runs a batch of sequences, or the next chunk of them.

        Args:
          audio: [B, T, Da] float.
          visual: [B, T, Dv] float.
          audio_mask: bool [B, T], False where there is no sound; the features there are not read.
          visual_mask: bool [B, T], False where there is no face.
          mask: bool [B, T], True on frames of the sequence; padding at the end.
          train: dropout on; needs the rng "dropout" if a rate is not 0.
          carry: what the previous chunk returned; None starts a sequence.

        Returns:
          traces [B, T, 2] (valence, arousal) if there is that head; logits [B, T, C] if num_classes; rater_traces
          [B, T, R, 2] if num_raters; fused [B, T, D]; hidden [B, T, H]; gates [B, T, 2] (audio, visual) where the
          fusion has them; carry, None where the fusion or temporal model needs the whole sequence.
        """
        modules = build_fusion(self.fusion, self.fusion_args, dtype=self.dtype, name="fusion")
        if carry is not None and not modules.streams:
            raise UserError(f"fusion {self.fusion!r} needs the whole sequence: it cannot go on from a carry")
        audio_mask, visual_mask = self._drop_modality(audio_mask & mask, visual_mask & mask, train)
        audio, audio_seen = self._fill("audio_token", audio, audio_mask, mask)
        visual, visual_seen = self._fill("visual_token", visual, visual_mask, mask)
        if modules.level == "decision":
            return self._decide(modules, audio, visual, audio_mask, visual_mask, mask, train, carry)

        arguments = {}
        if isinstance(modules, ModelLevel):
            arguments = {"mask": mask, "carry": None if carry is None else carry["fusion"]}
        fused, extras = modules(audio, visual, audio_seen, visual_seen, train, **arguments)
        hidden, temporal_carry = self._temporal("temporal", fused, mask, train, carry)
        carries = {"fusion": extras.pop("carry", () if modules.streams else None), "temporal": temporal_carry}
        carry = None if any(c is None for c in carries.values()) else carries
        return {**self._heads("", hidden), "fused": fused, "hidden": hidden, "carry": carry, **extras}

    def _decide(self, late, audio, visual, audio_mask, visual_mask, mask, train, carry) -> dict[str, Any]:
        """Decision level: an encoder, temporal model and heads for each modality, then a mean of what they say."""
        each, carries, hidden, encoded = {}, {}, [], []
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
        parts = jnp.split(fused, [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)], axis=-1)
        decided = {key: part.reshape(each["audio"][key].shape) for key, part in zip(outputs, parts, strict=True)}
        return {
            **decided,
            "fused": jnp.concatenate(encoded, -1),
            "hidden": jnp.concatenate(hidden, -1),
            "carry": None if any(c is None for c in carries.values()) else carries,
            **extras,
        }

    def _temporal(self, name, x, mask, train, carry, key="temporal") -> tuple[jax.Array, Any]:
        dropout = Dropout(self.dropout, deterministic=not train)
        model = build_temporal(self.temporal, self.temporal_args, dtype=self.dtype, name=name)
        hidden, carry = model(dropout(x), mask, train, None if carry is None else carry[key])
        return dropout(hidden.astype(jnp.float32)), carry

    def _heads(self, prefix: str, hidden: jax.Array) -> dict[str, jax.Array]:
        # Heads in float32 whatever the compute dtype: traces are differences of small numbers.
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
        """Returns the frames, 0 or a learned token where there are none, and which of them a fusion may read."""
        if self.missing == "zero":
            return jnp.where(seen[:, :, None], x, 0.0), seen
        if self.missing != "token":
            raise unknown("missing", self.missing, ("zero", "token"))
        token = self.param(name, nn.initializers.normal(0.02), (x.shape[-1],), jnp.float32).astype(x.dtype)
        x = jnp.where(seen[:, :, None], x, jnp.broadcast_to(token, x.shape))
        return jnp.where(mask[:, :, None], x, 0.0), mask

    def _drop_modality(self, audio: jax.Array, visual: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Masks one modality of some examples; never the only one an example has."""
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
      UserError: for an unknown key, fusion, temporal model, or number of either.
    """
    model = AudioVisual(**network_fields("field of model", config, module_fields(AudioVisual)))
    if model.missing not in ("zero", "token"):
        raise unknown("missing", model.missing, ("zero", "token"))
    # A misspelt number is an error before any data is read. `parent=None`: these modules are thrown away.
    build_fusion(model.fusion, model.fusion_args, parent=None)
    build_temporal(model.temporal, model.temporal_args, parent=None)
    return model
