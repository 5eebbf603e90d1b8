"""Teacher and student: facial expression from still faces.

Both learn from labelled faces (cross-entropy on hard labels or on rater votes) and from FEC triplets, in one joint
batch through one trunk: L = w_fec · L_FEC + w_ce · CE, where the thesis that re-implements arXiv 2103.09154 has w_fec
= 1 and w_ce = 0.1. The student adds, on every image of the batch and on unlabelled faces, the distance to a frozen
teacher: KL(teacher ‖ student) on tempered logits (× T²) and a distance between the embeddings.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from avemo import losses, metrics
from avemo.data import examples, mixture, padding, pipeline, shards
from avemo.metrics import shared_classes
from avemo.models import expression
from avemo.ops import global_batch, parallel
from avemo.runs import checkpoints, run_folder
from avemo.runs.weights import fingerprint
from avemo.tasks import start
from avemo.tasks.base import Metrics, Predictions, Task
from avemo.tasks.pooled import pool_frames

_PARTS = {
    "faces": examples.face_example,
    "triplets": examples.triplet_example,
    "unlabelled": examples.face_example,
}


def make(
    config: ConfigDict,
    *,
    data: str | None = None,
    class_names: tuple[str, ...] = (),
    flip: bool = False,
    per_person: bool = False,
) -> Task:
    """The task `teacher`, or `student` where `config.task` says so.

    `data` replaces the evaluation data's folder: faces, triplets, or clips, whose frames are pooled. `class_names` are
    the run's own. `flip`: predictions are the mean over a picture and its mirror image. `per_person`: of clips, less
    what each person's recordings say on average.
    """
    model = expression.build(config.model)
    size = config.model.image_size
    paths = {part: config.data[part] for part in _PARTS if config.data.get(part)}
    if data is not None:
        paths = {kind(data): data}
    if per_person and "clips" not in paths:
        raise start.UserError("--adapt=person is for clips, which say whose they are: pass --data=CLIPS.")
    sources = {
        part: pipeline.Source(
            path,
            _PARTS[part],
            config.data.batch[part],
            open=_balanced if part == "faces" and config.data.get("balanced") else shards.Shards,
        )
        for part, path in paths.items()
        if part in _PARTS and config.data.batch.get(part)
    }
    constants, weights, teacher = {}, start.provenance(config), None
    if config.task == "student" and data is None:  # other data is scored where the teacher may not be
        teacher_config, _, variables = checkpoints.load(run_folder.require(config.teacher, "teacher"))
        teacher = expression.build(teacher_config.model)
        constants, weights["teacher"] = {"teacher": variables}, fingerprint(variables)

    def init(key: jax.Array) -> dict[str, Any]:
        images = jnp.zeros((1, size, size, 3), jnp.uint8)
        variables = start.initialise(functools.partial(model.init, train=False), key, images)
        variables = {name: tree for name, tree in variables.items() if name != "intermediates"}
        return start.from_pretrained(variables, config)

    def predict(variables: Any, batch: Any) -> dict[str, jax.Array]:
        images = batch["images"] if "images" in batch else batch["image"]
        flat = images.reshape(-1, *images.shape[-3:])
        out = model.apply(variables, flat, train=False)
        if flip:
            mirrored = model.apply(variables, flat[:, :, ::-1], train=False)
            out = jax.tree.map(lambda a, b: (a + b) / 2, out, mirrored)
        if teacher is not None and images.ndim == 4:
            out["teacher_logits"] = teacher.apply(variables["teacher"], flat, train=False)["logits"]
        wanted = ("embedding", "logits", "teacher_logits") if images.ndim == 4 else ("embedding",)
        return {k: v.reshape(*images.shape[:-3], -1) for k, v in out.items() if k in wanted}

    def evaluate(mapped: Callable, variables: Any, split: str) -> tuple[Metrics, Predictions]:
        if teacher is not None:
            variables = {**variables, "teacher": parallel.replicate(constants["teacher"])}
        return _evaluate(mapped, variables, split, paths, config, (class_names, names), per_person)

    labelled = next((paths[p] for p in ("faces", "clips", "unlabelled") if p in paths), None)
    names = mixture.open_split(labelled, mixture.splits(labelled)[0]).class_names if labelled else []
    if names and not class_names and len(names) != config.model.num_classes:
        raise start.UserError(
            f"model.num_classes is {config.model.num_classes}, but {labelled} has {len(names)} classes "
            f"({', '.join(names)}): set --config.model.num_classes={len(names)}."
        )
    scored = {part: path for part, path in paths.items() if part != "unlabelled"}
    return Task(
        name=config.task,
        init=init,
        forward=functools.partial(forward, model, teacher),
        criterion=functools.partial(criterion, config, teacher is not None),
        batches=lambda: pipeline.train_batches(sources, config),
        records=lambda number: pipeline.batch_records(sources, config, number),
        examples=sum(s.batch_size * (3 if part == "triplets" else 1) for part, s in sources.items()),
        predict=predict,
        evaluate=evaluate,
        eval_splits=tuple(config.eval_splits),
        constants=constants,
        data=scored or paths,
        weights=weights,
        class_names=tuple(names),
    )


def _balanced(folder: str, split: str) -> pipeline.Balanced:
    return pipeline.Balanced(shards.Shards(folder, split))


def kind(folder: str) -> str:
    """Whether a data folder holds faces, triplets or clips."""
    first = mixture.open_split(folder, mixture.splits(folder)[0])
    return next(
        (name for name, field in (("triplets", "images"), ("clips", "frames")) if field in first.features), "faces"
    )


def forward(
    model: Any, teacher: Any, params: Any, model_state: Any, constants: Any, batch: Any, key: jax.Array
) -> tuple[dict[str, Any], Any]:
    """Outputs of every part's images, `{part: {name: [images, ...]}}`, by one pass over all of them, and the state."""
    images, sizes, weights = [], [], []
    for part in sorted(batch):
        x = batch[part]["images" if part == "triplets" else "image"]
        images.append(x.reshape(-1, *x.shape[-3:]))
        sizes.append(len(images[-1]))
        weights.append(_image_weight(batch, part))
    images = jnp.concatenate(images)
    with global_batch.held(sizes, weights):
        # Mutable only what the model has: a frozen network has no statistics to update.
        out, changed = model.apply(
            {"params": params, **model_state}, images, train=True, rngs={"dropout": key}, mutable=list(model_state)
        )
    out = {"student": out}
    if teacher is not None:
        out["teacher"] = jax.lax.stop_gradient(teacher.apply(constants["teacher"], images, train=False))
    ends = np.cumsum(sizes).tolist()
    spans = {part: slice(end - size, end) for part, end, size in zip(sorted(batch), ends, sizes, strict=True)}
    return {part: jax.tree.map(operator.itemgetter(span), out) for part, span in spans.items()}, changed


def _image_weight(batch: Any, part: str) -> jax.Array | None:
    """float32 `[images]`, 0 for padding, or None where a part has none."""
    weight = batch[part].get("weight")
    return jnp.repeat(weight, 3) if weight is not None and part == "triplets" else weight


def criterion(
    config: ConfigDict, distilled: bool, outputs: dict[str, Any], batch: Any
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The joint global loss, and the values to log."""
    values, total = {}, jnp.zeros(())

    def add(name: str, weight: float, value: jax.Array) -> None:
        nonlocal total
        values[name] = value
        total = total + weight * value

    settings = config.loss
    if "triplets" in batch:
        triplets, embedding = batch["triplets"], outputs["triplets"]["student"]["embedding"]
        embedding = embedding.reshape(-1, 3, embedding.shape[-1])
        odd = jnp.full(embedding.shape[0], 2, jnp.int32)  # `triplet_example` puts the odd one last
        margin = settings.margin if isinstance(settings.margin, float) else tuple(settings.margin)
        add(
            "fec_loss",
            settings.fec_weight,
            losses.triplet(embedding, odd, triplets["type"], triplets.get("weight"), margin=margin),
        )
    if "faces" in batch:
        logits, faces = outputs["faces"]["student"]["logits"], padding.without_padding(batch["faces"])
        if settings.labels == "votes":
            add("ce_loss", settings.ce_weight, losses.vote_kl(logits, faces["votes"]))
        else:
            class_weights = jnp.asarray(tuple(settings.class_weights), jnp.float32) if settings.class_weights else None
            add(
                "ce_loss",
                settings.ce_weight,
                losses.cross_entropy(
                    logits,
                    faces["label"],
                    class_weights=class_weights,
                    label_smoothing=settings.label_smoothing,
                ),
            )
        correct = (logits.argmax(-1) == faces["label"]).astype(jnp.float32)
        values["accuracy"] = losses.weighted_mean(correct, (faces["label"] >= 0).astype(jnp.float32))
    if distilled:
        parts = sorted(batch)
        out = jax.tree.map(lambda *x: jnp.concatenate(x), *(outputs[part] for part in parts))
        labels, weights = [], []
        for part in parts:
            size = len(outputs[part]["student"]["logits"])
            labels.append(batch[part]["label"] if part == "faces" else jnp.full(size, -1, jnp.int32))
            weight = _image_weight(batch, part)
            weights.append(jnp.ones(size, jnp.float32) if weight is None else weight)
        terms = _distillation(
            settings.distillation, out["student"], out["teacher"], jnp.concatenate(labels), jnp.concatenate(weights)
        )
        for name, weight, value in terms:
            add(name, weight, value)
    return total, values


def _distillation(
    settings: ConfigDict, student: dict, teacher: dict, labels: jax.Array, weights: jax.Array
) -> list[tuple[str, float, jax.Array]]:
    """The distillation terms that the config gives a weight: (name, weight, value)."""
    terms = []
    if settings.kd_weight:
        if settings.logits == "dkd":
            value = losses.dkd(
                student["logits"],
                teacher["logits"],
                labels,
                weights,
                temperature=settings.temperature,
                alpha=settings.dkd_alpha,
                beta=settings.dkd_beta,
            )
        else:
            value = losses.kd(student["logits"], teacher["logits"], weights, temperature=settings.temperature)
        terms.append(("kd_loss", settings.kd_weight, value))
    if settings.embedding_weight:
        terms.append(
            (
                "embedding_loss",
                settings.embedding_weight,
                losses.embedding_distance(student["embedding"], teacher["embedding"], weights, kind=settings.embedding),
            )
        )
    if settings.rkd_weight:
        value = losses.rkd(student["descriptor"], teacher["descriptor"], weights)
        terms.append(("rkd_loss", settings.rkd_weight, value))
    return terms


def _evaluate(
    mapped: Callable,
    variables: Any,
    split: str,
    paths: dict[str, str],
    config: ConfigDict,
    names: tuple[Sequence[str], Sequence[str]],
    per_person: bool,
) -> tuple[Metrics, Predictions]:
    """Accuracy and its kin on the labelled faces, triplet accuracy by type on the triplets, of one split.

    `names`: the classes of the run and of the data, where they may differ.
    """
    scores: Metrics = {}
    predictions: Predictions = {}
    if "faces" in paths and split in mixture.splits(paths["faces"]):
        source = pipeline.Source(paths["faces"], examples.face_example, config.data.eval_batch, split)
        found = _collect(mapped, variables, pipeline.eval_batches(source, config), ("label",))
        label, probability = shared_classes.match(*names, found["label"], metrics.softmax(found["logits"]))
        keep = label >= 0
        scores |= metrics.class_scores(label[keep], probability[keep])
        if "teacher_logits" in found:
            teacher = metrics.softmax(found["teacher_logits"])
            _, teacher = shared_classes.match(*names, found["label"], teacher)
            scores["teacher_accuracy"] = metrics.class_scores(label[keep], teacher[keep])["accuracy"]
            scores["agreement"] = float(np.mean(probability.argmax(-1) == teacher.argmax(-1)))
        predictions |= {"label": label, "probability": probability, "embedding": found["embedding"]}
    if "clips" in paths and split in mixture.splits(paths["clips"]):
        pooled = pool_frames(mapped, variables, mixture.open_split(paths["clips"], split), config, per_person)
        label, probability = shared_classes.match(*names, pooled["label"], pooled["probability"])
        keep = label >= 0
        if keep.any():
            scores |= metrics.class_scores(label[keep], probability[keep])
            predictions |= {**pooled, "label": label, "probability": probability}
    if "triplets" in paths and split in mixture.splits(paths["triplets"]):
        source = pipeline.Source(
            paths["triplets"], examples.triplet_example, max(1, config.data.eval_batch // 2), split
        )
        found = _collect(mapped, variables, pipeline.eval_batches(source, config), ("type",))
        scores |= metrics.triplet_scores(found["embedding"], found["type"])
    if not scores:
        raise start.UserError(
            f"no data of split {split!r} to evaluate on: {', '.join(paths.values())} have "
            f"{', '.join(sorted(set().union(*(mixture.splits(p) for p in paths.values()))))}."
        )
    return scores, predictions


def _collect(mapped: Callable, variables: Any, batches: Any, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Predicts all batches and joins outputs and the named inputs, without the padding."""
    found: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        keep = batch.pop("weight") > 0
        # Only images travel to the devices; labels stay here.
        out = mapped(variables, {k: v for k, v in batch.items() if k in ("image", "images")})
        for name, value in {**out, **{k: batch[k] for k in keys}}.items():
            found.setdefault(name, []).append(np.asarray(value)[keep])
    return {name: np.concatenate(values) for name, values in found.items()}
