"""Fusion by gates, modulation, and attention over modalities, frame by frame."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.models.fusion.base import Extras, Frames, Fusion, Mask, present
from avemo.ops.attention import masked_softmax
from avemo.ops.layer_norm import LayerNorm
from media.errors import unknown


class GatedMultimodalUnit(Fusion):
    """h = z ∘ tanh(W_v v) + (1 − z) ∘ tanh(W_a a), z = σ(W_z [a; v]). Arevalo et al., arXiv 1702.01992.

    The gates returned are the means over the features of (1 − z, z).
    """

    @nn.compact
    def __call__(
        self, audio: Frames, visual: Frames, audio_mask: Mask, visual_mask: Mask, train: bool = False
    ) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        audio, visual = present(audio, audio_mask), present(visual, visual_mask)
        z = jax.nn.sigmoid(self.dense("gate")(jnp.concatenate([audio, visual], -1)).astype(jnp.float32))
        a = jnp.tanh(self.dense("audio")(audio)).astype(jnp.float32)
        v = jnp.tanh(self.dense("visual")(visual)).astype(jnp.float32)
        share = z.mean(-1)
        return z * v + (1.0 - z) * a, {"gates": jnp.stack([1.0 - share, share], -1)}


class FiLM(Fusion):
    """Feature-wise linear modulation, γ(a) ∘ W v + β(a) and the reverse. Perez et al., arXiv 1709.07871.

    γ = 1 + a linear map, so an absent conditioning modality leaves the other as it is (up to biases). Both directions
    are joined: ReLU(W [a'; v']).

    Attributes:
      direction: "both", "audio_to_visual" (sound modulates the face) or "visual_to_audio".
    """

    direction: str = "both"

    @nn.compact
    def __call__(
        self, audio: Frames, visual: Frames, audio_mask: Mask, visual_mask: Mask, train: bool = False
    ) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        if self.direction not in ("both", "audio_to_visual", "visual_to_audio"):
            raise unknown("film direction", self.direction, ("both", "audio_to_visual", "visual_to_audio"))
        inputs = {"audio": present(audio, audio_mask), "visual": present(visual, visual_mask)}
        modulated = []
        for by, target in (("audio", "visual"), ("visual", "audio")):
            if self.direction in ("both", f"{by}_to_{target}"):
                # Only β needs a bias.
                gamma, beta, x = (
                    layer(inputs[source]).astype(jnp.float32)  # 1 + γ in bfloat16 would be γ in multiples of 1/128
                    for layer, source in (
                        (self.dense(f"gamma_{by}"), by),
                        (self.dense(f"beta_{by}"), by),
                        (self.dense(target, use_bias=False), target),
                    )
                )
                modulated.append((1 + gamma) * x + beta)
        return self.join(*modulated), {}


class AttentionPool(Fusion):
    """h = Σ_m w_m h_m with h_m = ReLU(W_m x_m), w = softmax(u tanh(W [h_a; h_v])) over modalities. MERBench,
    2401.03429.

    A masked modality has weight 0; if both are masked, h is 0.
    """

    @nn.compact
    def __call__(
        self, audio: Frames, visual: Frames, audio_mask: Mask, visual_mask: Mask, train: bool = False
    ) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        a = nn.relu(self.dense("audio")(present(audio, audio_mask)))
        v = nn.relu(self.dense("visual")(present(visual, visual_mask)))
        query = jnp.tanh(self.dense("attention")(jnp.concatenate([a, v], -1)))
        scores = self.dense("score", 2)(query).astype(jnp.float32)
        gates = masked_softmax(scores, jnp.stack([audio_mask, visual_mask], -1))
        fused = (gates[..., None] * jnp.stack([a, v], -2).astype(jnp.float32)).sum(-2)
        return fused, {"gates": gates}


class LeaderFollower(Fusion):
    """Attention over modalities in each frame, residual and layer norm, joined to the leader. arXiv 2107.01175.

    h_m = W_m x_m; o_m = LN(h_m + Σ_n softmax_n(q_m · k_n / √D) v_n); fused = ReLU(W [h_leader; o_a; o_v]). The gates
    are the attention that each modality receives, averaged over the queries.

    Attributes:
      leader: "visual" (the published choice) or "audio".
    """

    leader: str = "visual"

    @nn.compact
    def __call__(
        self, audio: Frames, visual: Frames, audio_mask: Mask, visual_mask: Mask, train: bool = False
    ) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        if self.leader not in ("audio", "visual"):
            raise unknown("leader", self.leader, ("audio", "visual"))
        inputs = {"audio": present(audio, audio_mask), "visual": present(visual, visual_mask)}
        h = {m: self.dense(m)(x) for m, x in inputs.items()}
        q, k, v = (
            jnp.stack([self.dense(f"{role}_{m}", use_bias=role == "value")(h[m]) for m in h], -2)
            for role in ("query", "key", "value")
        )
        scores = jnp.einsum("btmd,btnd->btmn", q, k, preferred_element_type=jnp.float32) / self.features**0.5
        there = jnp.stack([audio_mask, visual_mask], -1)[:, :, None, :]
        weights = masked_softmax(scores, jnp.broadcast_to(there, scores.shape))
        attended = jnp.einsum("btmn,btnd->btmd", weights.astype(v.dtype), v)
        out = LayerNorm(dtype=self.dtype, name="norm")(jnp.stack(list(h.values()), -2) + attended)
        return self.join(h[self.leader], out[..., 0, :], out[..., 1, :]), {"gates": weights.mean(-2)}
