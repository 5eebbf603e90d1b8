"""Fusion by attention over time: each modality attends to the other's frames."""

import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.models.attention import AttentionBlock, add_positions
from avemo.models.fusion.base import Extras, Frames, Fusion, Mask, present
from avemo.ops.layer_norm import LayerNorm


class CrossAttention(Fusion):
    """Each modality's queries on the other's keys and values, both ways, then joined. MulT, arXiv 1906.00295.

    x_m = W_m x_m + positions; for every layer x_a ← block(queries x_a, keys and values v) and x_v ← block(queries x_v,
    keys and values a), the sources being the projected inputs, as in MulT; fused = ReLU(W [x_a; x_v]).

    Attributes:
      num_layers: blocks each way.
      num_heads: heads; `features` must be a multiple.
      causal: attend to the present and past only.
      window: attend to frames at most this far away; None is no limit.
      dropout: rate in the blocks.
    """

    num_layers: int = 1
    num_heads: int = 4
    causal: bool = False
    window: int | None = None
    dropout: float = 0.0

    streams: ClassVar[bool] = False  # even causal: keys of the past are not carried

    @nn.compact
    def __call__(
        self, audio: Frames, visual: Frames, audio_mask: Mask, visual_mask: Mask, train: bool = False
    ) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        a = add_positions(self.dense("audio")(present(audio, audio_mask)))
        v = add_positions(self.dense("visual")(present(visual, visual_mask)))
        out = []
        for name, x, source, seen in (("audio", a, v, visual_mask), ("visual", v, a, audio_mask)):
            for layer in range(self.num_layers):
                block = AttentionBlock(
                    self.features,
                    self.num_heads,
                    self.causal,
                    self.window,
                    self.dropout,
                    self.dtype,
                    name=f"{name}_{layer}",
                )
                x = block(x, source, seen, train)
            out.append(LayerNorm(dtype=self.dtype, name=f"{name}_norm")(x))
        return self.join(*out), {}


class JointCrossAttention(Fusion):
    """Each modality attends to the joint representation of both. Praveen et al., arXiv 2203.14779; recursive:
    2304.07958.

    In windows of L frames, X_a [L, Da], X_v [L, Dv], J = [X_a; X_v] [L, d]:
    C_a = tanh(X_aᵀ W_a J / √d) [Da, d] with W_a [L, L]; H_a = ReLU(X_aᵀ W_x + C_a W_c) [Da, k]; X_a ← X_a + (H_a
    W_h)ᵀ with W_h [k, L]; the same for v; repeated `iterations` times with the same weights; then ReLU(W [X_a; X_v]).

    The weights over time fix L, so a sequence is cut into windows of L frames, the last one filled up with masked
    frames. Only full windows stream: chunks must be multiples of L.

    Attributes:
      window: L.
      hidden: k.
      iterations: number of repetitions of the attention.
    """

    window: int = 16
    hidden: int = 32
    iterations: int = 1

    streams: ClassVar[bool] = False

    @nn.compact
    def __call__(
        self, audio: Frames, visual: Frames, audio_mask: Mask, visual_mask: Mask, train: bool = False
    ) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        batch, length, audio_dim = audio.shape
        windows = -(-length // self.window)

        def cut(x: jax.Array) -> jax.Array:
            x = jnp.pad(x, ((0, 0), (0, windows * self.window - length), *[(0, 0)] * (x.ndim - 2)))
            return x.reshape(batch * windows, self.window, *x.shape[2:])

        masks = [cut(audio_mask)[:, :, None], cut(visual_mask)[:, :, None]]
        x = [jnp.where(m, cut(inputs).astype(self.dtype), 0) for m, inputs in zip(masks, (audio, visual), strict=True)]
        joint_dim = audio_dim + visual.shape[-1]
        weights = [
            {
                "mix": self.dense(f"{m}_mix", self.window, use_bias=False),
                "own": self.dense(f"{m}_own", self.hidden, use_bias=False),
                "joint": self.dense(f"{m}_joint", self.hidden, use_bias=False),
                "out": self.dense(f"{m}_out", self.window, use_bias=False),
            }
            for m in ("audio", "visual")
        ]
        for _ in range(self.iterations):
            joint = jnp.concatenate(x, -1)
            for i, w in enumerate(weights):
                over_time = x[i].swapaxes(1, 2)  # Xᵀ [N, D, L]
                correlation = jnp.tanh(w["mix"](over_time) @ joint / math.sqrt(joint_dim))
                hidden = nn.relu(w["own"](over_time) + w["joint"](correlation))
                # The next iteration must not read what attention writes into a masked frame.
                x[i] = jnp.where(masks[i], x[i] + w["out"](hidden).swapaxes(1, 2), 0)
        fused = self.join(*x)
        return fused.reshape(batch, windows * self.window, -1)[:, :length], {}


class Bottleneck(Fusion):
    """A few shared tokens carry all exchange between the modalities. MBT, Nagrani et al., arXiv 2107.00135.

    Each modality has a transformer over its frames. From layer `fusion_layer` on, `num_tokens` tokens join both
    sequences; after each layer they are the mean of the two results. fused = (W_a x_a + W_v x_v) / 2 per frame. With
    `fusion_layer` ≥ `num_layers` − 1 nothing is exchanged before the output: late fusion of features.

    Attributes:
      num_layers: layers of each transformer.
      fusion_layer: first layer (from 0) with tokens.
      num_tokens: tokens.
      num_heads: heads; `features` must be a multiple.
      dropout: rate in the blocks.
    """

    num_layers: int = 2
    fusion_layer: int = 0
    num_tokens: int = 4
    num_heads: int = 4
    dropout: float = 0.0

    streams: ClassVar[bool] = False

    @nn.compact
    def __call__(
        self, audio: Frames, visual: Frames, audio_mask: Mask, visual_mask: Mask, train: bool = False
    ) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        length = audio.shape[1]
        streams = {
            "audio": (add_positions(self.dense("audio")(present(audio, audio_mask))), audio_mask),
            "visual": (add_positions(self.dense("visual")(present(visual, visual_mask))), visual_mask),
        }
        tokens: jax.Array | None = None
        for layer in range(self.num_layers):
            if layer == self.fusion_layer:
                shape = (self.num_tokens, self.features)
                initial = self.param("tokens", nn.initializers.normal(0.02), shape, jnp.float32)
                # Broadcast first, then cast to `dtype`: the gradient's sum over the examples is float32.
                tokens = jnp.broadcast_to(initial[None], (audio.shape[0], *shape)).astype(self.dtype)
            proposals = []
            for name, (x, mask) in streams.items():
                block = AttentionBlock(
                    self.features, self.num_heads, dropout=self.dropout, dtype=self.dtype, name=f"{name}_{layer}"
                )
                if tokens is None:
                    streams[name] = (block(x, x, mask, train), mask)
                    continue
                both = jnp.concatenate([x, tokens], 1)
                seen = jnp.concatenate([mask, jnp.ones(tokens.shape[:2], bool)], 1)
                both = block(both, both, seen, train)
                streams[name] = (both[:, :length], mask)
                proposals.append(both[:, length:])
            if proposals:
                tokens = _mean(proposals)
        outputs = [
            self.dense(f"{name}_out")(LayerNorm(dtype=self.dtype, name=f"{name}_norm")(x)).astype(jnp.float32)
            for name, (x, _) in streams.items()
        ]
        return _mean(outputs), {}


def _mean(values: list[jax.Array]) -> jax.Array:
    total: jax.Array = sum(values)  # type: ignore[assignment]
    return total / len(values)
