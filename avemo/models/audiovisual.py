"""Fusion, time and heads: per-frame features of named streams to valence and arousal, and/or emotion logits.

The system of arXiv 2103.09154 is `fusion="model_level"` with a recurrent network over the joint sequence. The config
names any other strategy of `avemo.models.fusion` and temporal model of `avemo.models.temporal`.

    audio [B, T, Da] ─┐
                      ├─ fusion [B, T, D] ─ temporal model [B, T, H] ─ heads: traces [B, T, 2], logits [B, T, C]
    visual [B, T, Dv] ┘

The two streams are the default; there may be any number, of any names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Shaped

from avemo.configuration import STREAMS, streams
from avemo.models.from_config import module_fields, network_fields
from avemo.models.fusion import ModelLevel, build_fusion
from avemo.models.prior import Prior
from avemo.models.temporal import build_temporal
from avemo.ops.dropout import Dropout, example_keys
from avemo.ops.linear import Dense
from media.errors import UserError, unknown

OUTPUTS = ("traces", "rater_traces", "logits")
DIMENSIONS = ("valence", "arousal")


class AudioVisual(nn.Module):
    """The frames of N streams to traces.

    Attributes:
      streams: their names.
      fusion: name in `FUSIONS`.
      fusion_args: its fields.
      temporal: name in `TEMPORALS`.
      temporal_args: its fields.
      num_classes: C of the emotion head; 0 for no such head.
      traces: whether there is a valence/arousal head; None: only without an emotion head, because no loss would read
        it.
      num_raters: number of heads R, one per rater; `traces` is then their mean. 0: one head.
      head_features: width of a hidden layer that valence and arousal each have to themselves; 0 for none.
      dropout: rate on the joint representation and on the hidden states.
      modality_dropout: in training, the probability that an example loses some of its streams: a random number of them,
        but never all; of two streams one. An example with a single stream keeps it.
      missing: what replaces the frames of an absent stream: "zero", or "token", a learned vector.
      prior: "mean": traces start from the mean of the streams' own predictions (`avemo.models.prior`), and the network
        adds to it; "": they do not.
      prior_columns: of each stream, the columns that predict valence and arousal in the unit of the targets.
      prior_weights, prior_smooth: as in `Prior`.
      residual: factor of what the network adds to the prior; 0 leaves the prior alone.
      dtype: compute dtype; parameters and outputs are float32.
    """

    streams: tuple[str, ...] = STREAMS
    fusion: str = "model_level"
    fusion_args: Mapping[str, Any] = FrozenDict()
    temporal: str = "gru"
    temporal_args: Mapping[str, Any] = FrozenDict()
    num_classes: int = 0
    traces: bool | None = None
    num_raters: int = 0
    head_features: int = 0
    dropout: float = 0.0
    modality_dropout: float = 0.0
    missing: str = "zero"
    prior: str = ""
    prior_columns: tuple[int, int] = (0, 1)
    prior_weights: tuple[float, ...] = ()
    prior_smooth: float = 0.0
    residual: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        *inputs: Shaped[Array, "b t ..."],
        train: bool = False,
        carry: Any = None,
    ) -> dict[str, Any]:
        """Runs a batch of sequences, or the next chunk of them.

        Args:
          *inputs: the features of each stream `[B, T, D_n]`; then a mask of each, bool `[B, T]`, False for frames that
            lack it and whose features are not read; then `mask` `[B, T]`, True on frames of the sequence, with padding
            at the end. Of the default streams: audio, visual, audio_mask, visual_mask, mask. With a `prior`, then the
            streams' own predictions `[B, T, N, 2]`.
          train: apply dropout; needs the rng "dropout" if a rate is not 0.
          carry: the carry that the previous chunk returned; None starts a sequence.

        Returns:
          traces [B, T, 2] (valence, arousal) if the model has that head; logits [B, T, C] if num_classes; rater_traces
          [B, T, R, 2] if num_raters; fused [B, T, D]; hidden [B, T, H]; gates [B, T, N] (of each stream) if the fusion
          has them; carry, None if the fusion or temporal model needs the whole sequence.
        """
        count = len(self.streams)
        *masks, mask = inputs[count : 2 * count + 1]
        fuse: Any = build_fusion(
            self.fusion, self.fusion_args, dtype=self.dtype, name="fusion", inputs=tuple(self.streams)
        )
        if carry is not None and not (fuse.streams and self._carries()):
            raise UserError(f"fusion {self.fusion!r} needs the whole sequence: it cannot continue from a carry")
        masks = self._drop_modality(*(seen & mask for seen in masks), train)
        named = zip(self.streams, inputs[:count], masks, strict=True)
        filled = [self._fill(f"{name}_token", x, seen, mask) for name, x, seen in named]
        frames = [x for x, _ in filled]
        if fuse.level == "decision":
            return self._start(self._decide(fuse, frames, masks, mask, train, carry), masks, inputs)
        if fuse.level == "expert":
            logits, extras = fuse(*frames, *masks, train=train)
            if logits.shape[-1] != self.num_classes:
                raise UserError(f"experts speak for {logits.shape[-1]} classes, but num_classes is {self.num_classes}")
            return {"logits": logits, "fused": logits, "hidden": logits, "carry": (), **extras}

        arguments: dict[str, Any] = {}
        if isinstance(fuse, ModelLevel):
            arguments = {"mask": mask, "carry": None if carry is None else carry["fusion"]}
        fused, extras = fuse(*frames, *(seen for _, seen in filled), train=train, **arguments)
        hidden, temporal_carry = self._temporal("temporal", fused, mask, train, carry)
        carries = {"fusion": extras.pop("carry", () if fuse.streams else None), "temporal": temporal_carry}
        carry = None if any(c is None for c in carries.values()) else carries
        out = {**self._heads("", hidden), "fused": fused, "hidden": hidden, "carry": carry, **extras}
        return self._start(out, masks, inputs)

    @nn.nowrap
    def _carries(self) -> bool:
        return not (self.prior and self.prior_smooth)

    def _start(self, out: dict[str, Any], masks: Sequence[jax.Array], inputs: Sequence[jax.Array]) -> dict[str, Any]:
        """Adds the outputs to the prior, if there is one."""
        if not self.prior:
            return out
        mask, predictions = inputs[2 * len(self.streams) :]
        prior = Prior(self.prior_weights, self.prior_smooth, name="prior")
        start = prior(predictions, jnp.stack(list(masks), -1), mask)
        carry = out["carry"] if self._carries() else None
        return {**out, "traces": start + self.residual * out["traces"], "carry": carry}

    def _decide(
        self,
        late: Any,
        frames: Sequence[jax.Array],
        masks: Sequence[jax.Array],
        mask: jax.Array,
        train: bool,
        carry: Any,
    ) -> dict[str, Any]:
        """Decision level: an encoder, temporal model and heads per stream, then a mean of their predictions."""
        each: dict[str, dict[str, jax.Array]] = {}
        carries: dict[str, Any] = {}
        hidden, encoded = [], []
        for name, x, seen in zip(self.streams, frames, masks, strict=True):
            x = jnp.where((mask if self.missing == "token" else seen)[:, :, None], x, 0)
            x = nn.relu(Dense(late.features, dtype=self.dtype, name=f"{name}_encoder")(x)).astype(jnp.float32)
            h, carries[name] = self._temporal(f"{name}_temporal", x, mask, train, carry, key=name)
            each[name] = self._heads(f"{name}_", h)
            encoded.append(x)
            hidden.append(h)
        first = each[self.streams[0]]
        outputs = list(first)
        sizes = [first[key].reshape(*mask.shape, -1).shape[-1] for key in outputs]
        joined = [jnp.concatenate([each[m][k].reshape(*mask.shape, -1) for k in outputs], -1) for m in self.streams]
        fused, extras = late(*joined, *masks, train=train)
        pieces = jnp.split(fused, [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)], axis=-1)
        decided = {key: piece.reshape(first[key].shape) for key, piece in zip(outputs, pieces, strict=True)}
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
        initial = nn.initializers.zeros_init() if self.prior else nn.initializers.lecun_normal()
        traces = not self.num_classes if self.traces is None else self.traces
        if traces and self.num_raters:
            raters = nn.Dense(2 * self.num_raters, name=f"{prefix}rater_traces")(hidden)
            outputs["rater_traces"] = raters.reshape(*hidden.shape[:2], self.num_raters, 2)
            outputs["traces"] = outputs["rater_traces"].mean(-2)
        elif traces and self.head_features:
            each = []
            for name in DIMENSIONS:
                own = nn.relu(nn.Dense(self.head_features, name=f"{prefix}{name}_hidden")(hidden))
                each.append(nn.Dense(1, kernel_init=initial, name=f"{prefix}{name}")(own))
            outputs["traces"] = jnp.concatenate(each, -1)
        elif traces:
            outputs["traces"] = nn.Dense(2, kernel_init=initial, name=f"{prefix}traces")(hidden)
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

    def _drop_modality(self, *arguments: Any) -> list[jax.Array]:
        """Masks some streams of some examples, but never all that an example has. (N masks [B, T], train) -> masks."""
        *masks, train = arguments
        count = len(masks)
        if not train or not self.modality_dropout or count < 2:
            return list(masks)
        keys = example_keys(self.make_rng("dropout"), masks[0].shape[0])
        draw = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
        if count == 2:
            first = draw[:, 1] < 0.5
            lost = jnp.stack([first, ~first], -1)
        else:
            order = jax.vmap(lambda key: jax.random.permutation(jax.random.fold_in(key, 1), count))(keys)
            lost = order < 1 + jnp.floor(draw[:, 1:] * (count - 1)).astype(order.dtype)
        present = jnp.stack([mask.any(1) for mask in masks], -1)
        drop = (draw[:, 0] < self.modality_dropout) & (present & ~lost).any(-1)
        return [mask & ~(drop & lost[:, n])[:, None] for n, mask in enumerate(masks)]


def build(config: Mapping[str, Any]) -> AudioVisual:
    """Builds the model from a config whose keys are `AudioVisual`'s attributes, with `dtype` as a string.

    Raises:
      UserError: for an unknown key, fusion or temporal model, or an unknown field of either.
    """
    fields = network_fields("field of model", config, module_fields(AudioVisual))
    model = AudioVisual(**{**fields, "streams": streams(config)})
    if model.prior not in ("", "mean"):
        raise unknown("model.prior", model.prior, ("mean",))
    if model.prior and (model.num_classes or model.num_raters):
        raise UserError("model.prior is for one head of valence and arousal: set num_classes and num_raters to 0.")
    if model.missing not in ("zero", "token"):
        raise unknown("missing", model.missing, ("zero", "token"))
    if not model.streams or len(set(model.streams)) < len(model.streams):
        raise UserError(f"model.streams={tuple(model.streams)} must be one or more different names.")
    # Built only to report a misspelt field before any data is read; `parent=None` detaches them from the model.
    build_fusion(model.fusion, model.fusion_args, parent=None, inputs=tuple(model.streams))
    build_temporal(model.temporal, model.temporal_args, parent=None)
    return model
