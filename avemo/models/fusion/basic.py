"""One stream, feature-level, decision-level and model-level fusion."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.models.fusion.base import Extras, Frames, Fusion, Mask
from avemo.models.temporal import build_temporal
from media.errors import UserError, unknown


class Only(Fusion):
    """One stream alone, ReLU(W x): the unimodal row of the table. The others are not read.

    Attributes:
      stream: its name, which the entries `audio` and `visual` set. Any other stream alone is `concat` of that one.
    """

    stream: str = ""

    @nn.compact
    def __call__(self, *inputs: jax.Array, train: bool = False) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        if self.stream not in self.inputs:
            raise unknown("stream of a fusion of one", self.stream, self.inputs)
        return self.join(self.present(inputs)[self.stream]), {}


class Concat(Fusion):
    """Feature-level (early) fusion: ReLU(W [a; v]). MultiBench's ConcatEarly, arXiv 2107.07502."""

    @nn.compact
    def __call__(self, *inputs: jax.Array, train: bool = False) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        return self.join(*self.present(inputs).values()), {}


class Late(Fusion):
    """Decision-level fusion: w_a·p_a + w_v·p_v of each stream's own model, w convex. MuSe challenge baselines.

    The frames of the streams are *predictions* of equal width. Where a stream is masked, the others share its weight.
    Where all are, the weights do not change, because all models still predict from their states.

    Attributes:
      weights: "mean", "learned" (softmax of one logit per stream and output dimension, starting equal), or a fixed
        number for each stream, normalised to sum 1.
    """

    weights: str | tuple[float, ...] = "learned"

    level: ClassVar[str] = "decision"

    @nn.compact
    def __call__(self, *inputs: jax.Array, train: bool = False) -> tuple[Frames, Extras]:
        """(N predictions [B, T, K], N masks) -> ([B, T, K], gates averaged over K)."""
        shape = (len(self.inputs), inputs[0].shape[-1])
        if isinstance(self.weights, tuple):
            if len(self.weights) != shape[0] or min(self.weights) < 0 or sum(self.weights) <= 0:
                count = "two" if shape[0] == 2 else shape[0]
                raise UserError(f"late: weights={self.weights} must be {count} numbers ≥ 0, not all 0")
            share = jnp.broadcast_to(jnp.asarray(self.weights, jnp.float32)[:, None] / sum(self.weights), shape)
        elif self.weights == "learned":
            share = jax.nn.softmax(self.param("weights", nn.initializers.zeros_init(), shape, jnp.float32), axis=0)
        elif self.weights == "mean":
            share = jnp.full(shape, 1 / shape[0], jnp.float32)
        else:
            raise unknown("late weights", self.weights, ("mean", "learned"))
        heard = self.seen(inputs).astype(jnp.float32)  # [B, T, N]
        heard = jnp.where(heard.sum(-1, keepdims=True) > 0, heard, 1.0)
        gates = heard[..., None] * share[None, None]
        total = gates.sum(2, keepdims=True)
        # If all streams present have a fixed weight of 0, they still decide, equally.
        equal = jnp.broadcast_to((heard / heard.sum(-1, keepdims=True))[..., None], gates.shape)
        gates = jnp.where(total > 0, gates / jnp.where(total > 0, total, 1.0), equal)
        # A prediction of weight 0 is not read at all: 0 · NaN would be NaN.
        each = jnp.stack([x for _, x, _ in self.pairs(inputs)], 2).astype(jnp.float32)
        fused = jnp.where(gates > 0, gates * jnp.where(gates > 0, each, 0.0), 0.0).sum(2)
        return fused, {"gates": gates.mean(-1)}


class ModelLevel(Fusion):
    """Model-level fusion: each stream has its own encoder, the hidden representations are joined, [h_a; h_v].

    Source: arXiv 2103.09154, which joins the deep features at model level before a recurrent network over the joint
    sequence (the temporal model of `AudioVisual`). That each modality's encoder is itself recurrent is our assumption;
    `encoder="dense"` is the alternative: ReLU(W x) per frame. D = N · features for N streams.

    Attributes:
      encoder: "dense", or a temporal model's name (`avemo.models.temporal`).
      encoder_args: its fields, except `features`.
    """

    encoder: str = "gru"
    encoder_args: Mapping[str, Any] | None = None

    @nn.compact
    def __call__(
        self,
        *inputs: jax.Array,
        train: bool = False,
        mask: Mask | None = None,
        carry: dict[str, Any] | None = None,
    ) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`; `carry` holds the encoder's carry of each stream, by name."""
        mask = self.seen(inputs).any(-1) if mask is None else mask
        hidden: list[jax.Array] = []
        carries: dict[str, Any] = {}
        for name, x in self.present(inputs).items():
            if self.encoder == "dense":
                h, carries[name] = nn.relu(self.dense(name)(x)), ()
            else:
                numbers = {**(self.encoder_args or {}), "features": self.features}
                encoder = build_temporal(self.encoder, numbers, dtype=self.dtype, name=name)
                h, carries[name] = encoder(x, mask, train, None if carry is None else carry[name])
            hidden.append(h.astype(jnp.float32))
        streams = all(c is not None for c in carries.values())
        return jnp.concatenate(hidden, -1), {"carry": carries if streams else None}
