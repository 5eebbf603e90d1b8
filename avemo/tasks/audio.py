"""The audio encoder: log-mel windows of 0.96 s to the targets of their frames, then frozen as a feature extractor.

VGGish with a linear head for valence and arousal (1 − CCC) or for the clip's emotion (cross-entropy); how the encoder
of arXiv 2103.09154 was trained is not stated in any source we could read, so this is our assumption.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from avemo import losses, metrics
from avemo.data import examples, mixture, padding, pipeline
from avemo.metrics import shared_classes
from avemo.models import audio_regressor
from avemo.ops import global_batch
from avemo.tasks import start
from avemo.tasks.audiovisual import clip_logits
from avemo.tasks.base import Metrics, Predictions, Task


def make(config: ConfigDict, *, data: str | None = None, class_names: tuple[str, ...] = ()) -> Task:
    """The task `audio`; `data` replaces the evaluation data's folder, `class_names` are the run's own."""
    folder = data or config.data.clips
    if not folder:
        raise start.UserError("data.clips is empty: pass the folder that `python -m data_prep` wrote.")
    model = audio_regressor.build(config.model)
    sources = {"clips": pipeline.Source(folder, examples.window_example, config.data.batch.clips)}
    names = mixture.open_split(folder, mixture.splits(folder)[0]).class_names

    def init(key: jax.Array) -> dict[str, Any]:
        windows = jnp.zeros((1, examples.MEL_ROWS, 64))
        variables = start.initialise(functools.partial(model.init, train=False), key, windows)
        return start.from_pretrained(variables, config)

    def predict(variables: Any, batch: Any) -> dict[str, jax.Array]:
        windows = batch["windows"]
        out = model.apply(variables, windows.reshape(-1, *windows.shape[2:]), train=False)
        return {k: v.reshape(*windows.shape[:2], -1) for k, v in out.items() if k != "embedding"}

    @functools.cache
    def recordings(split: str) -> np.ndarray:
        records = mixture.open_split(folder, split)
        return np.array([records.fields(i, ("recording",))[0] for i in range(len(records))])

    def evaluate(mapped: Callable, variables: Any, split: str) -> tuple[Metrics, Predictions]:
        source = pipeline.Source(folder, examples.window_example, config.data.eval_batch, split)
        scores, predictions = _evaluate(mapped, variables, source, config, (class_names, names))
        return scores, {"recording": recordings(split), **predictions} if "label" in predictions else predictions

    return Task(
        name=config.task,
        init=init,
        forward=functools.partial(forward, model),
        criterion=functools.partial(criterion, config),
        batches=lambda: pipeline.train_batches(sources, config),
        records=lambda number: pipeline.batch_records(sources, config, number),
        examples=config.data.batch.clips * config.data.windows,
        predict=predict,
        evaluate=evaluate,
        eval_splits=tuple(config.eval_splits),
        data={"clips": folder},
        weights=start.provenance(config),
        class_names=tuple(names),
    )


def forward(
    model: Any, params: Any, model_state: Any, constants: Any, batch: Any, key: jax.Array
) -> tuple[dict[str, jax.Array], Any]:
    """Logits `[B, N, C]` or traces `[B, N, 2]` of the clips' windows, and the model's state."""
    del constants
    clips = batch["clips"]
    windows = clips["windows"]
    weight = None if "weight" not in clips else jnp.repeat(clips["weight"], windows.shape[1])
    with global_batch.held([windows.shape[0] * windows.shape[1]], [weight]):
        out, changed = model.apply(
            {"params": params, **model_state},
            windows.reshape(-1, *windows.shape[2:]),
            train=True,
            rngs={"dropout": key},
            mutable=list(model_state),
        )
    return {k: v.reshape(*windows.shape[:2], -1) for k, v in out.items() if k != "embedding"}, changed


def criterion(config: ConfigDict, outputs: Any, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The global loss, and the values to log."""
    clips = padding.without_padding(batch["clips"])
    if config.model.num_classes:
        logits = clip_logits(outputs["logits"], clips["mask"])
        # A silent clip says nothing about its emotion.
        label = jnp.where(clips["mask"].any(1), clips["label"], -1)
        loss = losses.cross_entropy(logits, label, label_smoothing=config.loss.label_smoothing)
        correct = (logits.argmax(-1) == label).astype(jnp.float32)
        return loss, {"accuracy": losses.weighted_mean(correct, (label >= 0).astype(jnp.float32))}
    loss = losses.ccc_loss(
        outputs["traces"],
        clips["targets"],
        clips["target_mask"],
        per=config.loss.per,
        mse_weight=config.loss.mse_weight,
    )
    return loss, {}


def _evaluate(
    mapped: Callable,
    variables: Any,
    source: pipeline.Source,
    config: ConfigDict,
    names: tuple[Sequence[str], Sequence[str]],
) -> tuple[Metrics, Predictions]:
    found: dict[str, list[np.ndarray]] = {}
    name = "logits" if config.model.num_classes else "traces"
    for batch in pipeline.eval_batches(source, config):
        keep = batch["weight"] > 0
        out = mapped(variables, {"windows": batch["windows"]})
        for key, value in {
            name: out[name],
            **{k: batch[k] for k in ("targets", "target_mask", "mask", "label")},
        }.items():
            found.setdefault(key, []).append(np.asarray(value)[keep])
    joined = {k: np.concatenate(v) for k, v in found.items()}
    if config.model.num_classes:
        weight = joined["mask"].astype(np.float32)[..., None]
        pooled = (joined["logits"] * weight).sum(1) / np.maximum(weight.sum(1), 1)
        label, probability = shared_classes.match(*names, joined["label"], metrics.softmax(pooled))
        keep = label >= 0
        if not keep.any():
            raise start.UserError(
                f"no clip of {source.path} has an emotion label: use a config with model.num_classes=0."
            )
        return metrics.class_scores(label[keep], probability[keep]), {
            "label": label,
            "probability": probability,
        }
    if not joined["target_mask"].any():
        raise start.UserError(
            f"no window of {source.path} has valence and arousal: set model.num_classes for emotions."
        )
    scores = metrics.trace_scores(list(joined["traces"]), list(joined["targets"]), list(joined["target_mask"]))
    return scores, {"prediction": joined["traces"], "target": joined["targets"], "mask": joined["target_mask"]}
