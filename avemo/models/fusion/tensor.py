"""Fusion by the outer product of the modalities, whole or in low rank."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.models.fusion.base import Extras, Frames, Fusion, Mask, present


class _Products(Fusion):
    """Base of both: each modality, optionally reduced first, with a 1 prepended.

    Attributes:
      reduced: width to which ReLU(W x) reduces each modality before the product; 0 does not reduce it. The product has
        (reduced + 1)² entries.
    """

    reduced: int = 16

    @nn.nowrap
    def _with_one(self, name: str, x: jax.Array, mask: jax.Array) -> jax.Array:
        x = present(x, mask)
        if self.reduced:
            x = nn.relu(self.dense(name, self.reduced)(x))
        return jnp.concatenate([jnp.ones((*x.shape[:-1], 1), x.dtype), x], -1).astype(self.dtype)


class TensorFusion(_Products):
    """W vec([1; a] ⊗ [1; v]) + b. Zadeh et al., arXiv 1707.07250."""

    @nn.compact
    def __call__(
        self, audio: Frames, visual: Frames, audio_mask: Mask, visual_mask: Mask, train: bool = False
    ) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        # In float32: the product's gradients are sums over it.
        a = self._with_one("audio", audio, audio_mask).astype(jnp.float32)
        v = self._with_one("visual", visual, visual_mask).astype(jnp.float32)
        product = (a[..., :, None] * v[..., None, :]).reshape(*a.shape[:-1], -1)
        # The first entry of the product is 1 · 1, so its weight is the bias.
        return self.dense("join", use_bias=False)(product).astype(jnp.float32), {}


class LowRankTensorFusion(_Products):
    """Σ_r (F_a^r [1; a]) ∘ (F_v^r [1; v]): `tfn` with W of rank r. Liu et al., arXiv 1806.00064.

    The factors absorb the rank weights of the published code, and their rows of ones the bias.

    Attributes:
      rank: r; rank min(Da, Dv) + 1 can express every `tfn`.
    """

    rank: int = 4

    @nn.compact
    def __call__(
        self, audio: Frames, visual: Frames, audio_mask: Mask, visual_mask: Mask, train: bool = False
    ) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        a = self._with_one("audio", audio, audio_mask)
        v = self._with_one("visual", visual, visual_mask)
        return jnp.einsum("btrd,btrd->btd", self._factors("audio_factors", a), self._factors("visual_factors", v)), {}

    @nn.nowrap
    def _factors(self, name: str, x: jax.Array) -> jax.Array:
        # lecun_normal in each factor, with the 4th root of the rank: a sum over r of products of two grows as √r.
        init = nn.initializers.variance_scaling(
            self.rank**-0.5, "fan_in", "normal", in_axis=1, out_axis=2, batch_axis=0
        )
        factors = self.param(name, init, (self.rank, x.shape[-1], self.features), jnp.float32)
        return jnp.einsum("bti,rid->btrd", x, factors.astype(self.dtype), preferred_element_type=jnp.float32)
