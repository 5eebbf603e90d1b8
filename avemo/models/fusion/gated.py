"""Fusion by gates, modulation, and attention over streams, frame by frame."""

import functools
import operator

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.models.fusion.base import Extras, Frames, Fusion
from avemo.ops.attention import masked_softmax
from avemo.ops.layer_norm import LayerNorm
from media.errors import unknown


class GatedMultimodalUnit(Fusion):
    """h = z ∘ tanh(W_v v) + (1 − z) ∘ tanh(W_a a), z = σ(W_z [a; v]). Arevalo et al., arXiv 1702.01992.

    For N streams h = Σ_n z_n ∘ tanh(W_n x_n), with z the softmax over streams of (0, W_z [x_1; …; x_N]), which is the
    formula above for two. The gates returned are the means of z over the features.
    """

    @nn.compact
    def __call__(self, *inputs: jax.Array, train: bool = False) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        streams = self.present(inputs)
        gate = self.dense("gate", (len(streams) - 1) * self.features)(jnp.concatenate(list(streams.values()), -1))
        if len(streams) == 2:  # the softmax of two as the published formula has it
            z = jax.nn.sigmoid(gate.astype(jnp.float32))
            shares = [1.0 - z, z]
        else:
            logits = jnp.stack(jnp.split(gate.astype(jnp.float32), len(streams) - 1, -1), -2)
            logits = jnp.pad(logits, [(0, 0)] * (logits.ndim - 2) + [(1, 0), (0, 0)])
            z = jax.nn.softmax(logits, axis=-2)
            shares = [z[..., n, :] for n in range(len(streams))]
        hidden = [jnp.tanh(self.dense(name)(x)).astype(jnp.float32) for name, x in streams.items()]
        fused = functools.reduce(operator.add, (z * h for z, h in zip(shares, hidden, strict=True)))
        return fused, {"gates": jnp.stack([z.mean(-1) for z in shares], -1)}


class FiLM(Fusion):
    """Feature-wise linear modulation, γ(a) ∘ W v + β(a) and the reverse. Perez et al., arXiv 1709.07871.

    γ = 1 + a linear map, so an absent conditioning modality leaves the other as it is (up to biases). Both directions
    are joined: ReLU(W [a'; v']). Each of N streams is modulated by all others together.

    Attributes:
      direction: "both", or "A_to_B": only stream B is modulated, by A ("audio_to_visual": sound modulates the face).
    """

    direction: str = "both"

    @nn.compact
    def __call__(self, *inputs: jax.Array, train: bool = False) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        streams = self.present(inputs)
        single = {f"{a}_to_{b}": ((a,), b) for a in streams for b in streams if a != b}
        if self.direction != "both" and self.direction not in single:
            raise unknown("film direction", self.direction, ("both", *single))
        # The last stream first: the order of the published pair, (audio -> visual), (visual -> audio).
        every = [(tuple(other for other in streams if other != target), target) for target in reversed(streams)]
        modulated = []
        for sources, target in every if self.direction == "both" else [single[self.direction]]:
            by = sources[0] if len(sources) == 1 else f"for_{target}"
            condition = jnp.concatenate([streams[source] for source in sources], -1)
            # Only β needs a bias. In float32: 1 + γ in bfloat16 would be γ in multiples of 1/128.
            gamma = self.dense(f"gamma_{by}")(condition).astype(jnp.float32)
            beta = self.dense(f"beta_{by}")(condition).astype(jnp.float32)
            x = self.dense(target, use_bias=False)(streams[target]).astype(jnp.float32)
            modulated.append((1 + gamma) * x + beta)
        return self.join(*modulated), {}


class AttentionPool(Fusion):
    """h = Σ_m w_m h_m with h_m = ReLU(W_m x_m), w = softmax(u tanh(W [h_a; h_v])) over modalities. MERBench,
    2401.03429.

    A masked stream has weight 0; if all are masked, h is 0.
    """

    @nn.compact
    def __call__(self, *inputs: jax.Array, train: bool = False) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        hidden = [nn.relu(self.dense(name)(x)) for name, x in self.present(inputs).items()]
        query = jnp.tanh(self.dense("attention")(jnp.concatenate(hidden, -1)))
        scores = self.dense("score", len(hidden))(query).astype(jnp.float32)
        gates = masked_softmax(scores, self.seen(inputs))
        fused = (gates[..., None] * jnp.stack(hidden, -2).astype(jnp.float32)).sum(-2)
        return fused, {"gates": gates}


class LeaderFollower(Fusion):
    """Attention over streams in each frame, residual and layer norm, joined to the leader. arXiv 2107.01175.

    h_m = W_m x_m; o_m = LN(h_m + Σ_n softmax_n(q_m · k_n / √D) v_n); fused = ReLU(W [h_leader; o_a; o_v]). The gates
    are the attention that each stream receives, averaged over the queries.

    Attributes:
      leader: name of a stream; "visual" is the published choice.
    """

    leader: str = "visual"

    @nn.compact
    def __call__(self, *inputs: jax.Array, train: bool = False) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        if self.leader not in self.inputs:
            raise unknown("leader", self.leader, self.inputs)
        h = {m: self.dense(m)(x) for m, x in self.present(inputs).items()}
        q, k, v = (
            jnp.stack([self.dense(f"{role}_{m}", use_bias=role == "value")(h[m]) for m in h], -2)
            for role in ("query", "key", "value")
        )
        scores = jnp.einsum("btmd,btnd->btmn", q, k, preferred_element_type=jnp.float32) / self.features**0.5
        there = self.seen(inputs)[:, :, None, :]
        weights = masked_softmax(scores, jnp.broadcast_to(there, scores.shape))
        attended = jnp.einsum("btmn,btnd->btmd", weights.astype(v.dtype), v)
        out = LayerNorm(dtype=self.dtype, name="norm")(jnp.stack(list(h.values()), -2) + attended)
        each = [out[..., n, :] for n in range(len(h))]
        return self.join(h[self.leader], *each), {"gates": weights.mean(-2)}
