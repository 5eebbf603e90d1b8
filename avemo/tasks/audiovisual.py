"""Fusion and time: cached per-frame features of both modalities to valence and arousal traces, or to an emotion.

Model-level fusion and a recurrent network over the joint sequence (arXiv 2103.09154); the loss is 1 − CCC per dimension
(our assumption), or cross-entropy of the clip's emotion over masked time for corpora that carry emotions.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avemo import losses, metrics
from avemo.data import features, padding, pipeline, shards
from avemo.metrics import shared_classes
from avemo.models import audiovisual
from avemo.runs import recorded_encoders
from avemo.tasks import start
from avemo.tasks.base import Metrics, Predictions, Task

MODALITIES = ("audio", "visual")


def standardise(batch: Any, constants: Any) -> dict[str, jax.Array]:
    """Features `[B, T, D]` minus mean over deviation of the training split, zero where the modality is absent."""
    out = {}
    for modality in MODALITIES:
        x = (batch[modality] - constants[f"{modality}_mean"][None, None]) / constants[f"{modality}_std"][None, None]
        out[modality] = jnp.where(batch[f"{modality}_mask"][..., None], x, 0.0)
    return out


def apply(model: Any, variables: Any, batch: Any, train: bool, key: jax.Array | None = None) -> dict[str, jax.Array]:
    """Runs the model on a batch of sequences; `variables` carry the standardisation as the collection `constants`."""
    x = standardise(batch, variables["constants"])
    return model.apply(
        {"params": variables["params"]},
        x["audio"],
        x["visual"],
        batch["audio_mask"],
        batch["visual_mask"],
        batch["mask"],
        train=train,
        rngs=None if key is None else {"dropout": key},
    )


def make(config: ConfigDict, *, data: str | None = None, class_names: tuple[str, ...] = ()) -> Task:
    """The task `audiovisual`; `data` replaces the evaluation data's folder, `class_names` are the run's own."""
    folder = data or config.data.features
    if not folder:
        raise start.UserError("data.features is empty: pass the folder that `launch.py extract` wrote.")
    model = audiovisual.build(config.model)
    recordings = functools.cache(lambda split: features.load(folder, split))
    first_split = "train" if "train" in shards.splits(folder) else shards.splits(folder)[0]
    names = shards.Shards(folder, first_split).class_names
    if config.model.num_classes and names and not class_names and len(names) != config.model.num_classes:
        raise start.UserError(
            f"model.num_classes is {config.model.num_classes}, but {folder} has {len(names)} classes "
            f"({', '.join(names)}): set --config.model.num_classes={len(names)}."
        )

    if config.model.get("num_raters") and data is None:
        raters = recordings(first_split)[0][0].raters.shape[1]
        if config.model.num_raters != raters:
            raise start.UserError(
                f"model.num_raters is {config.model.num_raters}, but {folder} has traces of {raters} raters: "
                f"set --config.model.num_raters={raters}, or 0 for the gold standard."
            )

    initialiser = functools.partial(model.init, train=False)  # one object: compiled once however often `init` is called

    def init(key: jax.Array) -> dict[str, Any]:
        train, _ = recordings(first_split)
        constants = {}
        for modality in MODALITIES:
            constants[f"{modality}_mean"], constants[f"{modality}_std"] = map(
                jnp.asarray, features.moments(train, modality)
            )
        example = jax.tree.map(
            lambda x: jnp.asarray(x)[None], features.sequence(train[0], 0, config.data.sequence_length, 0.0)
        )
        inputs = (example[k] for k in ("audio", "visual", "audio_mask", "visual_mask", "mask"))
        variables = start.initialise(initialiser, key, *inputs)
        return {"params": variables["params"], "constants": constants}

    sources = {"sequences": pipeline.Source(folder, features.window_example, config.data.batch.sequences)}

    def opened() -> dict[str, Any]:
        train, _ = recordings("train")
        return {"sequences": features.Windows(train, config.data.sequence_length, config.data.sequence_hop)}

    def predict(variables: Any, batch: Any) -> dict[str, jax.Array]:
        out = apply(model, variables, batch, train=False)
        return {k: out[k] for k in ("traces", "logits", "gates") if k in out}

    def evaluate(mapped: Callable, variables: Any, split: str) -> tuple[Metrics, Predictions]:
        return score(mapped, variables, recordings(split)[0], config, (class_names, names))

    return Task(
        name=config.task,
        init=init,
        forward=functools.partial(forward, model),
        criterion=functools.partial(criterion, config, "sequences"),
        batches=lambda: pipeline.train_batches(sources, config, opened()),
        records=lambda number: pipeline.batch_records(sources, config, number, opened()),
        examples=config.data.batch.sequences,
        predict=predict,
        evaluate=evaluate,
        eval_splits=tuple(config.eval_splits),
        data={"features": folder},
        class_names=tuple(names),
        on_finish=lambda workdir, variables, result: _record_encoders(workdir, folder),
    )


def _record_encoders(workdir: epath.Path, folder: str) -> None:
    if (shards.find_dataset(folder) / "extract.json").exists():
        recorded_encoders.record(workdir, folder)


def clip_logits(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of per-frame logits `[B, T, C]` over the frames of `mask` `[B, T]`: `[B, C]`."""
    weight = mask.astype(jnp.float32)[..., None]
    return (logits * weight).sum(1) / jnp.maximum(weight.sum(1), 1.0)


def forward(
    model: Any, params: Any, model_state: Any, constants: Any, batch: Any, key: jax.Array
) -> tuple[dict[str, jax.Array], Any]:
    """What the criterion reads of the model's outputs, and the state, which training leaves alone."""
    del constants
    out = apply(model, {"params": params, **model_state}, batch["sequences"], train=True, key=key)
    return trained_outputs(out), model_state


def trained_outputs(out: Any) -> dict[str, jax.Array]:
    """Those outputs of the model that `criterion` reads."""
    return {k: out[k] for k in ("traces", "rater_traces", "logits") if k in out}


def criterion(config: ConfigDict, part: str, out: Any, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The global loss of a model's outputs on the sequences of `part`, and the values to log."""
    rows = padding.without_padding(batch[part])
    if config.model.num_classes:
        logits = clip_logits(out["logits"], rows["mask"])
        loss = losses.cross_entropy(logits, rows["label"], label_smoothing=config.loss.label_smoothing)
        correct = (logits.argmax(-1) == rows["label"]).astype(jnp.float32)
        accuracy = losses.weighted_mean(correct, (rows["label"] >= 0).astype(jnp.float32))
        return loss, {"accuracy": accuracy}
    options = {"per": config.loss.per, "mse_weight": config.loss.mse_weight}
    if config.model.get("num_raters"):
        return losses.rater_ccc_loss(out["rater_traces"], rows["raters"], rows["rater_mask"], **options), {}
    return losses.ccc_loss(out["traces"], rows["targets"], rows["target_mask"], **options), {}


def undo_delay(prediction: np.ndarray, delay: float, fps: float) -> np.ndarray:
    """Moves a predicted trace `[T, K]` later by `delay` s, to the time of the labels; the first value fills the gap."""
    shift = min(round(delay * fps), len(prediction) - 1)
    return prediction if shift <= 0 else np.concatenate([np.repeat(prediction[:1], shift, 0), prediction[:-shift]])


def score(
    mapped: Callable,
    variables: Any,
    recordings: list[features.Recording],
    config: ConfigDict,
    names: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> tuple[Metrics, Predictions]:
    """Scores whole recordings, padded to the longest of the split so that one program serves them all.

    `names`: the classes of the run and of the recordings, where they may differ.
    """
    longest = max(len(r) for r in recordings)
    size = config.data.eval_batch
    outputs: list[dict[str, np.ndarray]] = []
    for begin in range(0, len(recordings), size):
        rows = [features.sequence(r, 0, longest, 0.0) for r in recordings[begin : begin + size]]
        batch = padding.pad_rows(rows, size)
        batch = {k: batch[k] for k in ("audio", "visual", "audio_mask", "visual_mask", "mask")}
        out = mapped(variables, batch)
        outputs += [{k: v[i] for k, v in out.items()} for i in range(len(rows))]
    if config.model.num_classes:
        return _score_classes(outputs, recordings, names)
    return _score_traces(outputs, recordings, config.data.delay)


def _score_classes(
    outputs: list, recordings: list[features.Recording], names: tuple[Sequence[str], Sequence[str]]
) -> tuple[Metrics, Predictions]:
    pooled = np.stack([o["logits"][: len(r)].mean(0) for o, r in zip(outputs, recordings, strict=True)])
    labels, probability = shared_classes.match(*names, np.array([r.label for r in recordings]), metrics.softmax(pooled))
    keep = labels >= 0
    if not keep.any():
        raise start.UserError("no recording of this split has an emotion label: use a config with model.num_classes=0.")
    return metrics.class_scores(labels[keep], probability[keep]), {
        "recording": np.array([r.name for r in recordings]),
        "label": labels,
        "probability": probability,
    }


def _score_traces(outputs: list, recordings: list[features.Recording], delay: float) -> tuple[Metrics, Predictions]:
    traces = [
        undo_delay(np.asarray(o["traces"][: len(r)]), delay, r.fps) for o, r in zip(outputs, recordings, strict=True)
    ]
    if not any(r.target_mask.any() for r in recordings):
        raise start.UserError(
            "no frame of this split has valence and arousal: its labels are not public, or are emotions "
            "(set model.num_classes)."
        )
    scores = metrics.trace_scores(traces, [r.targets for r in recordings], [r.target_mask for r in recordings])
    predictions = {
        "recording": np.array([r.name for r in recordings]),
        "length": np.array([len(r) for r in recordings]),
        "time": np.concatenate([r.time for r in recordings]),
        "prediction": np.concatenate(traces),
        "target": np.concatenate([r.targets for r in recordings]),
        "mask": np.concatenate([r.target_mask for r in recordings]),
        "visual_mask": np.concatenate([r.visual_mask for r in recordings]),
        "audio_mask": np.concatenate([r.audio_mask for r in recordings]),
    }
    if "gates" in outputs[0]:
        predictions["gates"] = np.concatenate(
            [np.asarray(o["gates"][: len(r)]) for o, r in zip(outputs, recordings, strict=True)]
        )
    return scores, predictions
