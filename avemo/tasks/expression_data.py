"""The data of teacher and student: faces, triplets and unlabelled faces; and clips, which are scored by frames."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from avemo import metrics
from avemo.data import examples, layouts, mixture, pipeline, shards
from avemo.tasks.data import (
    Metrics,
    Predict,
    Predictions,
    Scoring,
    StageData,
    Unscorable,
    check_classes,
    first_class_names,
    match_classes,
)
from avemo.tasks.frame_pooling import pool_frames
from avemo.tasks.stage import Stage, Variables
from media.errors import UserError

_EXAMPLES = {
    "faces": examples.face_example,
    "triplets": examples.triplet_example,
    "unlabelled": examples.face_example,
}


@dataclasses.dataclass(frozen=True, eq=False)
class ExpressionData(StageData):
    """The folders that the config names, or one other.

    Attributes:
      paths: data folders by kind: `faces`, `triplets`, `unlabelled`, `clips`.
    """

    paths: dict[str, str]

    def sources(self) -> dict[str, pipeline.Source]:
        """The training source of each stream that has a folder and a share of the batch."""
        data = self.config.data
        return {
            stream: pipeline.Source(
                path,
                _EXAMPLES[stream],
                data.batch[stream],
                open=_balanced if stream == "faces" and data.get("balanced") else shards.Shards,
                layout=functools.partial(_layout, stream, self.config),
            )
            for stream, path in self.paths.items()
            if stream in _EXAMPLES and data.batch.get(stream)
        }

    def check_classes(self) -> None:
        """Checks that the model has one class for each class of the labels."""
        labelled = _labelled(self.paths)
        if labelled:
            check_classes(self.config, self.paths[labelled], self.class_names)

    def check(self) -> None:
        """Checks that there is something to train on, and that its classes are the model's."""
        if not self.sources():
            raise UserError(
                "data.faces, data.triplets and data.unlabelled are empty, or their batch sizes are 0: pass a folder "
                "that `python -m data_prep` wrote."
            )
        self.check_classes()

    def score(
        self, predict: Predict, variables: Variables, split: str, scoring: Scoring
    ) -> tuple[Metrics, Predictions]:
        """Scores one split: accuracy, UAR and F1 of labelled faces or clips, triplet accuracy by type."""
        if scoring.per_person and "clips" not in self.paths:
            raise UserError("--adapt=person is for clips, which name the person: pass --data=CLIPS.")
        scores: Metrics = {}
        predictions: Predictions = {}
        present = [kind for kind in self.paths if split in mixture.splits(self.paths[kind]) and kind != "unlabelled"]
        if not present:
            held = sorted(set().union(*(mixture.splits(path) for path in self.paths.values())))
            raise UserError(
                f"no data of split {split!r} to evaluate on: {', '.join(self.paths.values())} have {', '.join(held)}."
            )
        for kind, score in (("faces", self._faces), ("clips", self._clips), ("triplets", self._triplets)):
            if kind in present:
                found, arrays = score(predict, variables, split, scoring)
                scores |= found
                predictions |= arrays
        if not scores:
            raise Unscorable(f"no face of split {split!r} of {', '.join(self.paths[k] for k in present)} has a label.")
        return scores, predictions

    def _faces(
        self, predict: Predict, variables: Variables, split: str, scoring: Scoring
    ) -> tuple[Metrics, Predictions]:
        source = pipeline.Source(self.paths["faces"], examples.face_example, self.config.data.eval_batch, split)
        found = _collect(predict, variables, pipeline.eval_batches(source, self.config), ("label",))
        said = metrics.softmax(found["logits"])
        label, probability = match_classes(scoring, self.class_names, found["label"], said)
        predictions = {"label": label, "probability": probability, "embedding": found["embedding"]}
        keep = label >= 0
        if not keep.any():
            return {}, predictions
        scores = metrics.class_scores(label[keep], probability[keep])
        if "teacher_logits" in found:
            said = metrics.softmax(found["teacher_logits"])
            _, teacher = match_classes(scoring, self.class_names, found["label"], said)
            scores["teacher_accuracy"] = metrics.class_scores(label[keep], teacher[keep])["accuracy"]
            scores["agreement"] = float(np.mean(probability.argmax(-1) == teacher.argmax(-1)))
        return scores, predictions

    def _clips(
        self, predict: Predict, variables: Variables, split: str, scoring: Scoring
    ) -> tuple[Metrics, Predictions]:
        clips = mixture.open_split(self.paths["clips"], split)
        pooled = pool_frames(predict, variables, clips, self.config, scoring.per_person)
        label, probability = match_classes(scoring, self.class_names, pooled["label"], pooled["probability"])
        keep = label >= 0
        if not keep.any():
            return {}, {}
        scores = metrics.class_scores(label[keep], probability[keep])
        return scores, {**pooled, "label": label, "probability": probability}

    def _triplets(self, predict: Predict, variables: Variables, split: str, _: Scoring) -> tuple[Metrics, Predictions]:
        size = max(1, self.config.data.eval_batch // 2)
        source = pipeline.Source(self.paths["triplets"], examples.triplet_example, size, split)
        found = _collect(predict, variables, pipeline.eval_batches(source, self.config), ("type",))
        return metrics.triplet_scores(found["embedding"], found["type"]), {}


def open_data(stage: Stage, folder: str | None = None) -> ExpressionData:
    """Opens the folders that the config names, or `folder`: faces, triplets, or clips, whose frames are pooled."""
    config = stage.config
    paths = {stream: config.data[stream] for stream in _EXAMPLES if config.data.get(stream)}
    if folder is not None:
        paths = {kind(folder): folder}
    scored = {name: path for name, path in paths.items() if name != "unlabelled"}
    labelled = _labelled(paths)
    names = first_class_names(paths[labelled]) if labelled else ()
    return ExpressionData(stage, scored or paths, names, paths)


def _labelled(paths: dict[str, str]) -> str | None:
    """The kind of folder that knows the classes."""
    return next((name for name in ("faces", "clips", "unlabelled") if name in paths), None)


def _layout(stream: str, config: ConfigDict, records: Any) -> layouts.Layout:
    field = "images" if stream == "triplets" else "image"
    return layouts.pictures(_EXAMPLES[stream], records, field, config)


def _balanced(folder: str, split: str) -> pipeline.Balanced:
    return pipeline.Balanced(shards.Shards(folder, split))


def kind(folder: str) -> str:
    """Whether a data folder holds faces, triplets or clips."""
    first = mixture.open_split(folder, mixture.splits(folder)[0])
    return next(
        (name for name, field in (("triplets", "images"), ("clips", "frames")) if field in first.features), "faces"
    )


def _collect(predict: Predict, variables: Variables, batches: Iterable[Any], keys: tuple[str, ...]) -> Predictions:
    """Predicts all batches and joins the outputs and the named inputs, without the padding."""
    found: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        keep = batch.pop("weight") > 0
        # Only images travel to the devices; labels stay here.
        out = predict(variables, {k: v for k, v in batch.items() if k in ("image", "images")})
        for name, value in {**out, **{k: batch[k] for k in keys}}.items():
            found.setdefault(name, []).append(np.asarray(value)[keep])
    return {name: np.concatenate(values) for name, values in found.items()}
