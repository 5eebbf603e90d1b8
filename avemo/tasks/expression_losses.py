"""The joint loss of teacher and student: triplets, labelled faces and, for a student, the distance to its teacher."""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avemo import losses
from avemo.data import padding

Term = tuple[str, float, jax.Array]  # name, weight, value


def criterion(
    settings: ConfigDict, distilled: bool, outputs: dict[str, Any], batch: Any
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted sum of the terms that the batch has data for, and the values to log.

    Args:
      settings: the config's `loss`.
      distilled: whether `outputs` hold a teacher's.
      outputs: `{stream: {"student": {name: [images, ...]}, "teacher": ...}}`.
      batch: one device's share of the batch.
    """
    terms: list[Term] = []
    logged: dict[str, jax.Array] = {}
    if "triplets" in batch:
        terms.append(_triplet_term(settings, outputs["triplets"]["student"]["embedding"], batch["triplets"]))
    if "faces" in batch:
        logits, faces = outputs["faces"]["student"]["logits"], padding.without_padding(batch["faces"])
        terms.append(("ce_loss", settings.ce_weight, _classification(settings, logits, faces)))
        correct = (logits.argmax(-1) == faces["label"]).astype(jnp.float32)
        logged["accuracy"] = losses.weighted_mean(correct, (faces["label"] >= 0).astype(jnp.float32))
    if distilled:
        terms += _distillation_terms(settings.distillation, outputs, batch)
    total = jnp.zeros(())
    for name, weight, value in terms:
        logged[name] = value
        total = total + weight * value
    return total, logged


def image_weight(batch: Any, stream: str) -> jax.Array | None:
    """float32 `[images]`, 0 for padding; None if the stream has no padding."""
    weight = batch[stream].get("weight")
    return jnp.repeat(weight, 3) if weight is not None and stream == "triplets" else weight


def _triplet_term(settings: ConfigDict, embedding: jax.Array, triplets: Any) -> Term:
    embedding = embedding.reshape(-1, 3, embedding.shape[-1])
    odd = jnp.full(embedding.shape[0], 2, jnp.int32)  # `triplet_example` puts the odd one last
    margin = settings.margin if isinstance(settings.margin, float) else tuple(settings.margin)
    value = losses.triplet(embedding, odd, triplets["type"], triplets.get("weight"), margin=margin)
    return "fec_loss", settings.fec_weight, value


def _classification(settings: ConfigDict, logits: jax.Array, faces: Any) -> jax.Array:
    class_weights = jnp.asarray(tuple(settings.class_weights), jnp.float32) if settings.class_weights else None
    if settings.labels == "votes":
        if class_weights is None:
            return losses.vote_kl(logits, faces["votes"])
        votes = faces["votes"]
        shares = votes / jnp.maximum(votes.sum(-1, keepdims=True), 1e-6)
        return losses.cross_entropy(logits, shares, class_weights=class_weights)
    return losses.cross_entropy(
        logits,
        faces["label"],
        class_weights=class_weights,
        label_smoothing=settings.label_smoothing,
    )


def _distillation_terms(settings: ConfigDict, outputs: dict[str, Any], batch: Any) -> list[Term]:
    """The distillation terms that the config gives a weight, over every image of the batch."""
    streams = sorted(batch)
    out = jax.tree.map(lambda *x: jnp.concatenate(x), *(outputs[stream] for stream in streams))
    student, teacher = out["student"], out["teacher"]
    labels, weights = (jnp.concatenate(x) for x in zip(*(_labels(outputs, batch, s) for s in streams), strict=True))
    terms: list[Term] = []
    if settings.kd_weight:
        value = _logit_distance(settings, student["logits"], teacher["logits"], labels, weights)
        terms.append(("kd_loss", settings.kd_weight, value))
    if settings.embedding_weight:
        value = losses.embedding_distance(student["embedding"], teacher["embedding"], weights, kind=settings.embedding)
        terms.append(("embedding_loss", settings.embedding_weight, value))
    if settings.rkd_weight:
        value = losses.rkd(student["descriptor"], teacher["descriptor"], weights)
        terms.append(("rkd_loss", settings.rkd_weight, value))
    return terms


def _labels(outputs: dict[str, Any], batch: Any, stream: str) -> tuple[jax.Array, jax.Array]:
    """Labels int32 `[images]`, -1 for images without one, and weights float32 `[images]`, 0 for padding."""
    size = len(outputs[stream]["student"]["logits"])
    labels = batch[stream]["label"] if stream == "faces" else jnp.full(size, -1, jnp.int32)
    weight = image_weight(batch, stream)
    return labels, jnp.ones(size, jnp.float32) if weight is None else weight


def _logit_distance(
    settings: ConfigDict, student: jax.Array, teacher: jax.Array, labels: jax.Array, weights: jax.Array
) -> jax.Array:
    if settings.logits != "dkd":
        return losses.kd(student, teacher, weights, temperature=settings.temperature)
    return losses.dkd(
        student,
        teacher,
        labels,
        weights,
        temperature=settings.temperature,
        alpha=settings.dkd_alpha,
        beta=settings.dkd_beta,
    )
