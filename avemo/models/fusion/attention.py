"""Fusion by attention over time: each stream attends to the frames of the others."""

import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.models.attention import AttentionBlock, add_positions
from avemo.models.fusion.base import Extras, Frames, Fusion, Mask
from avemo.ops.layer_norm import LayerNorm


class CrossAttention(Fusion):
    """Each modality's queries on the other's keys and values, both ways, then joined. MulT, arXiv 1906.00295.

    x_m = W_m x_m + positions; for every layer x_a ← block(queries x_a, keys and values v) and x_v ← block(queries x_v,
    keys and values a), the sources being the projected inputs, as in MulT; fused = ReLU(W [x_a; x_v]). Among N streams
    every ordered pair has its own blocks, N (N − 1) times `num_layers`.

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
    def __call__(self, *inputs: jax.Array, train: bool = False) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        masks = {name: mask for name, _, mask in self.pairs(inputs)}
        embedded = {name: add_positions(self.dense(name)(x)) for name, x in self.present(inputs).items()}
        out = []
        for target, source in ((a, b) for a in embedded for b in embedded if a != b):
            x = embedded[target]
            name = target if len(embedded) == 2 else f"{target}_from_{source}"
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
                x = block(x, embedded[source], masks[source], train)
            out.append(LayerNorm(dtype=self.dtype, name=f"{name}_norm")(x))
        return self.join(*out), {}


class JointCrossAttention(Fusion):
    """Each stream attends to the joint representation of all. Praveen et al., arXiv 2203.14779; recursive:
    2304.07958.

    In windows of L frames, X_a [L, Da], X_v [L, Dv], J = [X_a; X_v] [L, d]:
    C_a = tanh(X_aᵀ W_a J / √d) [Da, d] with W_a [L, L]; H_a = ReLU(X_aᵀ W_x + C_a W_c) [Da, k]; X_a ← X_a + (H_a
    W_h)ᵀ with W_h [k, L]; the same for v; repeated `iterations` times with the same weights; then ReLU(W [X_a; X_v]).
    N streams have a J of all of them.

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
    def __call__(self, *inputs: jax.Array, train: bool = False) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        streams = self.pairs(inputs)
        batch, length, _ = inputs[0].shape
        windows = -(-length // self.window)

        def cut(x: jax.Array) -> jax.Array:
            x = jnp.pad(x, ((0, 0), (0, windows * self.window - length), *[(0, 0)] * (x.ndim - 2)))
            return x.reshape(batch * windows, self.window, *x.shape[2:])

        masks = [cut(mask)[:, :, None] for _, _, mask in streams]
        x = [jnp.where(m, cut(frames).astype(self.dtype), 0) for m, (_, frames, _) in zip(masks, streams, strict=True)]
        joint_dim = sum(frames.shape[-1] for _, frames, _ in streams)
        weights = [
            {
                "mix": self.dense(f"{m}_mix", self.window, use_bias=False),
                "own": self.dense(f"{m}_own", self.hidden, use_bias=False),
                "joint": self.dense(f"{m}_joint", self.hidden, use_bias=False),
                "out": self.dense(f"{m}_out", self.window, use_bias=False),
            }
            for m in self.inputs
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
    """A few shared tokens carry all exchange between the streams. MBT, Nagrani et al., arXiv 2107.00135.

    Each stream has a transformer over its frames. From layer `fusion_layer` on, `num_tokens` tokens join all
    sequences; after each layer they are the mean of the results. fused = (W_a x_a + W_v x_v) / 2 per frame. With
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
    def __call__(self, *inputs: jax.Array, train: bool = False) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        batch, length = inputs[0].shape[:2]
        masks: dict[str, Mask] = {name: mask for name, _, mask in self.pairs(inputs)}
        streams = {name: (add_positions(self.dense(name)(x)), masks[name]) for name, x in self.present(inputs).items()}
        tokens: jax.Array | None = None
        for layer in range(self.num_layers):
            if layer == self.fusion_layer:
                shape = (self.num_tokens, self.features)
                initial = self.param("tokens", nn.initializers.normal(0.02), shape, jnp.float32)
                # Broadcast first, then cast to `dtype`: the gradient's sum over the examples is float32.
                tokens = jnp.broadcast_to(initial[None], (batch, *shape)).astype(self.dtype)
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
