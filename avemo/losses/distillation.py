"""Distillation losses: a student learns from a teacher's outputs. No gradient flows into the teacher's arrays."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from avemo.losses.metric_learning import squared_distance
from avemo.ops.device_axis import all_gather, psum
from avemo.ops.reductions import keep, safe_divide, weighted_mean
from avemo.ops.unit_norm import l2_normalise
from media.errors import unknown


def kd(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    weights: Shaped[Array, "b"] | None = None,
    *,
    temperature: float = 4.0,
) -> Float[Array, ""]:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), mean over the batch. Hinton et al., arXiv 1503.02531.

    Args:
      student_logits: of C classes.
      teacher_logits: of the same classes.
      weights: bool or float.
      temperature: T; the factor T² keeps the gradient's scale the same for every T.
    """
    student, teacher, weights = _prepare(student_logits, teacher_logits, weights)
    log_s, log_t = jax.nn.log_softmax(student / temperature), jax.nn.log_softmax(teacher / temperature)
    return temperature**2 * weighted_mean(_kl(log_t, log_s), weights)


def embedding_distance(
    student: Float[Array, "b d"],
    teacher: Float[Array, "b d"],
    weights: Shaped[Array, "b"] | None = None,
    *,
    kind: str = "l2",
) -> Float[Array, ""]:
    """Distance between two embeddings of the same image, mean over the batch.

    `kind`: "l2" is the squared L2 distance (as in the triplet loss), "cosine" is 1 − cos.
    """
    student, teacher, weights = _prepare(student, teacher, weights)
    if kind == "l2":
        distances = squared_distance(student, teacher)
    elif kind == "cosine":
        distances = 1.0 - (l2_normalise(student) * l2_normalise(teacher)).sum(-1)
    else:
        raise unknown("embedding distance", kind, ("l2", "cosine"))
    return weighted_mean(distances, weights)


def dkd(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    labels: Int[Array, "b"] | None = None,
    weights: Shaped[Array, "b"] | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Float[Array, ""]:
    """Decoupled distillation, T² (α · TCKD + β · NCKD). Zhao et al., arXiv 2203.08679.

    TCKD is the KL of the binary split target / not target, NCKD the KL among the other classes, renormalised. With
    α = 1 and β = 1 − p_t(target) their sum is plain KD.

    Args:
      student_logits: of C classes.
      teacher_logits: of the same classes.
      labels: the target class. For −1, and if `labels` is None, the target is the teacher's own class: our extension
        to unlabelled images, which the paper does not have.
      weights: bool or float.
      alpha: weight of the target-class part.
      beta: weight of the non-target-class part.
      temperature: T.
    """
    student, teacher, weights = _prepare(student_logits, teacher_logits, weights)
    target = teacher.argmax(-1)
    if labels is not None:
        target = jnp.where(labels >= 0, labels.astype(target.dtype), target)
    is_target = jax.nn.one_hot(target, student.shape[-1], dtype=jnp.float32)

    def split(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_p = jax.nn.log_softmax(logits / temperature)
        # A finite floor, not −inf: 0 · (−inf) would be NaN in the KL and in its gradient.
        others = jnp.where(is_target > 0, -1e9, log_p)
        log_others = jax.nn.logsumexp(others, axis=-1, keepdims=True)
        binary = jnp.concatenate([(is_target * log_p).sum(-1, keepdims=True), log_others], -1)
        return binary, others - log_others

    (binary_s, others_s), (binary_t, others_t) = split(student), split(teacher)
    losses = alpha * _kl(binary_t, binary_s) + beta * _kl(others_t, others_s)
    return temperature**2 * weighted_mean(losses, weights)


def rkd_distance(
    student: Float[Array, "b ds"], teacher: Float[Array, "b dt"], weights: Shaped[Array, "b"] | None = None
) -> Float[Array, ""]:
    """Relational distillation by distance: Huber(d_s / mean d_s, d_t / mean d_t) over all pairs. arXiv 1904.05068.

    The pairs are those of the *whole* batch, over all devices. As in the authors' code, the mean includes the zero
    diagonal.

    Args:
      student: descriptors.
      teacher: descriptors; their width may differ, since only relations are compared.
      weights: bool; 0 leaves an example out of every pair.
    """
    student, teacher, weights = _prepare(student, teacher, weights)
    rows = weights.astype(bool).astype(jnp.float32)
    columns = all_gather(rows)
    pairs = rows[:, None] * columns[None, :]

    def relative(x: jax.Array) -> jax.Array:
        _, distance = _differences(x)
        total, count = psum((distance * pairs).sum()), psum(jnp.where(distance > 0, pairs, 0.0).sum())
        mean = safe_divide(total, count)
        return safe_divide(distance, jnp.broadcast_to(mean, distance.shape))

    return weighted_mean(_huber(relative(student) - relative(teacher)), pairs)


def rkd_angle(
    student: Float[Array, "b ds"], teacher: Float[Array, "b dt"], weights: Shaped[Array, "b"] | None = None
) -> Float[Array, ""]:
    """Relational distillation by angle: Huber between the cosines at every vertex of every triple. arXiv 1904.05068.

    Arguments as in `rkd_distance`. Memory is [B_local, B_global, B_global]: each device takes its own vertices.
    """
    student, teacher, weights = _prepare(student, teacher, weights)
    rows = weights.astype(bool).astype(jnp.float32)
    columns = all_gather(rows)
    triples = rows[:, None, None] * columns[None, :, None] * columns[None, None, :]

    def cosines(x: jax.Array) -> jax.Array:
        difference, distance = _differences(x)
        unit = safe_divide(difference, jnp.broadcast_to(distance[..., None], difference.shape))
        return jnp.einsum("ijd,ikd->ijk", unit, unit)

    return weighted_mean(_huber(cosines(student) - cosines(teacher)), triples)


def rkd(
    student: Float[Array, "b ds"],
    teacher: Float[Array, "b dt"],
    weights: Shaped[Array, "b"] | None = None,
    *,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
) -> Float[Array, ""]:
    """25 · RKD-distance + 50 · RKD-angle, the weights of arXiv 1904.05068; arguments as in `rkd_distance`."""
    return distance_weight * rkd_distance(student, teacher, weights) + angle_weight * rkd_angle(
        student, teacher, weights
    )


def _prepare(student: jax.Array, teacher: jax.Array, weights: jax.Array | None) -> tuple[jax.Array, ...]:
    weights = jnp.ones(student.shape[:1], jnp.float32) if weights is None else weights.astype(jnp.float32)
    return keep(student, weights), jax.lax.stop_gradient(keep(teacher, weights)), weights


def _kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    return (jnp.exp(log_p) * (log_p - log_q)).sum(-1)


def _huber(error: jax.Array) -> jax.Array:
    size = jnp.abs(error)
    return jnp.where(size < 1.0, 0.5 * error * error, size - 0.5)


def _differences(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns x_j − x_i [local, global, D] and its length, whose gradient is 0, not NaN, if the two coincide."""
    difference = all_gather(x)[None, :, :] - x[:, None, :]
    squared = (difference * difference).sum(-1)
    return difference, jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
