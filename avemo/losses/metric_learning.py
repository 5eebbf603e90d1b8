"""The triplet loss of facial-expression comparison (FEC)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from avemo.ops.reductions import keep, weighted_mean
from avemo.ops.unit_norm import l2_normalise


def squared_distance(a: Float[Array, "*b d"], b: Float[Array, "*b d"]) -> Float[Array, "*b"]:
    """Squared L2 distance over the last axis, float32; unlike the distance itself it is smooth at a = b."""
    difference = a.astype(jnp.float32) - b.astype(jnp.float32)
    return (difference * difference).sum(-1)


def triplet_distances(
    embeddings: Float[Array, "b 3 d"], odd: Int[Array, "b"]
) -> tuple[Float[Array, "b"], Float[Array, "b"], Float[Array, "b"]]:
    """Returns squared distances (d_ij, d_ik, d_jk), with (i, j) the similar pair and k the odd one.

    Args:
      embeddings: of the three images.
      odd: the index of k, 0..2 (the label 1..3 of FEC's CSV minus one).
    """
    order = (odd[:, None] + jnp.array([[1, 2, 0]], odd.dtype)) % 3  # i, j, k
    i, j, k = jnp.moveaxis(jnp.take_along_axis(embeddings, order[:, :, None], axis=1), 1, 0)
    return squared_distance(i, j), squared_distance(i, k), squared_distance(j, k)


def triplet(
    embeddings: Float[Array, "b 3 d"],
    odd: Int[Array, "b"],
    types: Int[Array, "b"] | None = None,
    weights: Shaped[Array, "b"] | None = None,
    *,
    margin: float | Sequence[float] = 0.2,
    unit_norm: bool = False,
) -> Float[Array, ""]:
    """max(0, d_ij − d_ik + m) + max(0, d_ij − d_jk + m) with squared L2 distances, mean over triplets.

    Source: the thesis that re-implements arXiv 2103.09154 (flat margin 0.2). FECNet (arXiv 1811.11283) uses 0.1 for
    one-class and 0.2 for two- and three-class triplets on unit-norm embeddings: `margin=(0.1, 0.2, 0.2)` with
    `unit_norm=True`.

    Args:
      embeddings: of the three images.
      odd: the image outside the similar pair, 0..2.
      types: 0, 1, 2 for one-, two- and three-class triplets; needed if `margin` has three values.
      weights: bool or float.
      margin: m, or one per type.
      unit_norm: L2-normalise the embeddings first (for networks that do not do so themselves).
    """
    if weights is not None:
        embeddings = keep(embeddings, weights)
    similar, first, second = triplet_distances(
        l2_normalise(embeddings.astype(jnp.float32)) if unit_norm else embeddings, odd
    )
    if isinstance(margin, Sequence):
        if types is None:
            raise ValueError("triplet: a margin per type needs `types`")
        margins = jnp.asarray(margin, jnp.float32)[types]
    else:
        margins = jnp.full(similar.shape, margin, jnp.float32)
    losses = jax.nn.relu(similar - first + margins) + jax.nn.relu(similar - second + margins)
    return weighted_mean(losses, weights)
