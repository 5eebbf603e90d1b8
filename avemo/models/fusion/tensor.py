"""Fusion by the outer product of the streams, whole or in low rank."""

import functools
import math
import operator

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.models.fusion.base import Extras, Frames, Fusion
from media.errors import UserError

LARGEST = 32_768  # entries of an outer product, per frame; its weights are `features` times as many


class _Products(Fusion):
    """Base of both: each stream, optionally reduced first, with a 1 prepended.

    Attributes:
      reduced: width to which ReLU(W x) reduces each stream before the product; 0 does not reduce it. The product of N
        streams has (reduced + 1)^N entries.
    """

    reduced: int = 16

    @nn.nowrap
    def _with_ones(self, inputs: tuple[jax.Array, ...]) -> dict[str, jax.Array]:
        out = {}
        for name, x in self.present(inputs).items():
            if self.reduced:
                x = nn.relu(self.dense(name, self.reduced)(x))
            out[name] = jnp.concatenate([jnp.ones((*x.shape[:-1], 1), x.dtype), x], -1).astype(self.dtype)
        return out


class TensorFusion(_Products):
    """W vec([1; a] ⊗ [1; v]) + b. Zadeh et al., arXiv 1707.07250.

    N streams make one product of N vectors; one of more than `LARGEST` entries is refused.
    """

    @nn.compact
    def __call__(self, *inputs: jax.Array, train: bool = False) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        # In float32: the product's gradients are sums over it.
        streams = [x.astype(jnp.float32) for x in self._with_ones(inputs).values()]
        entries = math.prod(x.shape[-1] for x in streams)
        if len(streams) > 2 and entries > LARGEST:
            raise UserError(
                f"tfn: the product of {len(streams)} streams has {entries:,} entries per frame, above {LARGEST:,}: "
                "use fewer streams, a smaller fusion_args.reduced, or fusion lmf."
            )
        product = streams[0]
        for x in streams[1:]:
            product = (product[..., :, None] * x[..., None, :]).reshape(*x.shape[:-1], -1)
        # The first entry of the product is 1 · 1, so its weight is the bias.
        return self.dense("join", use_bias=False)(product).astype(jnp.float32), {}


class LowRankTensorFusion(_Products):
    """Σ_r (F_a^r [1; a]) ∘ (F_v^r [1; v]): `tfn` with W of rank r. Liu et al., arXiv 1806.00064.

    The factors absorb the rank weights of the published code, and their rows of ones the bias. N streams make products
    of N factors.

    Attributes:
      rank: r; rank min(Da, Dv) + 1 can express every `tfn` of two streams.
    """

    rank: int = 4

    @nn.compact
    def __call__(self, *inputs: jax.Array, train: bool = False) -> tuple[Frames, Extras]:
        """See `avemo.models.fusion`."""
        *factors, last = (self._factors(f"{name}_factors", x) for name, x in self._with_ones(inputs).items())
        return jnp.einsum("btrd,btrd->btd", functools.reduce(operator.mul, factors), last), {}

    @nn.nowrap
    def _factors(self, name: str, x: jax.Array) -> jax.Array:
        # lecun_normal in each of N factors, whose variance has the Nth root of the rank: a sum over r of products grows
        # as √r.
        init = nn.initializers.variance_scaling(
            self.rank ** (-1 / len(self.inputs)), "fan_in", "normal", in_axis=1, out_axis=2, batch_axis=0
        )
        factors = self.param(name, init, (self.rank, x.shape[-1], self.features), jnp.float32)
        return jnp.einsum("bti,rid->btrd", x, factors.astype(self.dtype), preferred_element_type=jnp.float32)
