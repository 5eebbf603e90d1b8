"""Cross-entropy on hard labels and on vote distributions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, Shaped

from avemo.ops.reductions import global_sums, keep, safe_divide, weighted_mean


def cross_entropy(
    logits: Float[Array, "*b c"],
    labels: Num[Array, "..."],
    weights: Shaped[Array, "*b"] | None = None,
    *,
    class_weights: Float[Array, "c"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Array, ""]:
    """Cross-entropy, mean over the labelled entries of all devices.

    Args:
      logits: of C classes.
      labels: integers [*b], −1 for unlabelled, or distributions [*b, C], a row of zeros for unlabelled.
      weights: bool or float, e.g. the frame mask for logits [B, T, C] against a clip label spread over time.
      class_weights: as in `torch.nn.CrossEntropyLoss`, the sum is divided by the sum of the rows' weights. The weight
        of a distribution is Σ_c p_c w_c. PyTorch divides by the number of rows there; ours equals hard labels for
        one-hot rows.
      label_smoothing: ε in (1 − ε)·target + ε / C.
    """
    classes = logits.shape[-1]
    targets = _distributions(labels, classes)
    weights = _labelled(targets, weights)
    targets, logits = keep(targets, weights), keep(logits, weights)
    per_class = jnp.ones(classes, jnp.float32) if class_weights is None else jnp.asarray(class_weights, jnp.float32)
    met = jnp.einsum("...c,c->...", targets, per_class)
    smoothed = (1.0 - label_smoothing) * targets + label_smoothing / classes
    losses = -jnp.einsum("...c,...c,c->...", smoothed, jax.nn.log_softmax(logits), per_class)
    total, _ = global_sums(losses, weights)
    normaliser, _ = global_sums(met, weights)
    return safe_divide(total, normaliser)


def vote_kl(
    logits: Float[Array, "*b c"], votes: Num[Array, "*b c"], weights: Shaped[Array, "*b"] | None = None
) -> Float[Array, ""]:
    """KL(votes ‖ softmax(logits)), mean over the entries that have votes.

    The gradient is that of cross-entropy with soft labels. The value is 0 at a perfect fit, so curves of corpora with
    different amounts of disagreement can be compared.

    Args:
      logits: of C classes.
      votes: counts or shares, normalised here; a row of zeros is unlabelled and left out.
      weights: bool or float.
    """
    weights = _labelled(votes, weights)
    votes, logits = keep(votes, weights), keep(logits, weights)
    total = votes.sum(-1, keepdims=True)
    shares = votes / jnp.where(total > 0, total, 1.0)
    surprisal = jnp.where(shares > 0, jnp.log(jnp.where(shares > 0, shares, 1.0)), 0.0)
    return weighted_mean((shares * (surprisal - jax.nn.log_softmax(logits))).sum(-1), weights)


def _distributions(labels: jax.Array, classes: int) -> jax.Array:
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return jax.nn.one_hot(labels, classes, dtype=jnp.float32)  # −1 gives a row of zeros
    return labels.astype(jnp.float32)


def _labelled(targets: jax.Array, weights: jax.Array | None) -> jax.Array:
    labelled = (targets.sum(-1) > 0).astype(jnp.float32)
    return labelled if weights is None else labelled * weights.astype(jnp.float32)
