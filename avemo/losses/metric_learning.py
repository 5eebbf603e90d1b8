"""The triplet loss of facial-expression comparison (FEC)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from avemo.ops.reductions import keep, weighted_mean
from avemo.ops.unit_norm import l2_normalise


def squared_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Squared L2 distance over the last axis, float32: smooth where a = b, unlike the distance itself."""
    difference = a.astype(jnp.float32) - b.astype(jnp.float32)
    return (difference * difference).sum(-1)


def triplet_distances(embeddings: jax.Array, odd: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns squared distances (d_ij, d_ik, d_jk), each [B], with (i, j) the similar pair and k the odd one.

    Args:
      embeddings: [B, 3, D].
      odd: int [B], 0..2: the index of k. (FEC's CSV label 1..3 minus one.)
    """
    order = (odd[:, None] + jnp.array([[1, 2, 0]], odd.dtype)) % 3  # i, j, k
    i, j, k = jnp.moveaxis(jnp.take_along_axis(embeddings, order[:, :, None], axis=1), 1, 0)
    return squared_distance(i, j), squared_distance(i, k), squared_distance(j, k)


def triplet(
    embeddings: jax.Array,
    odd: jax.Array,
    types: jax.Array | None = None,
    weights: jax.Array | None = None,
    *,
    margin: float | Sequence[float] = 0.2,
    unit_norm: bool = False,
) -> jax.Array:
    """max(0, d_ij − d_ik + m) + max(0, d_ij − d_jk + m) with squared L2 distances, mean over triplets.

    Source: the thesis that re-implements arXiv 2103.09154 (flat margin 0.2); FECNet (arXiv 1811.11283) uses 0.1 for
    one-class and 0.2 for two- and three-class triplets, on unit-norm embeddings: `margin=(0.1, 0.2, 0.2)` with
    `unit_norm=True`.

    Args:
      embeddings: [B, 3, D].
      odd: int [B], 0..2, the image outside the similar pair.
      types: int [B], 0, 1, 2 for one-, two- and three-class triplets; needed where `margin` has three values.
      weights: [B] bool or float.
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
