"""The data of fusion: recordings of cached features, in memory; and the scores of whole recordings."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avemo import configuration, metrics
from avemo.configuration import STREAMS
from avemo.data import features, layouts, overlap, padding, pipeline, shards
from avemo.data.feature_sets import FeatureSet
from avemo.runs import recorded_encoders
from avemo.tasks.audiovisual import AudioVisualStage, inputs
from avemo.tasks.data import (
    Metrics,
    Predict,
    Predictions,
    Scoring,
    StageData,
    Unscorable,
    check_classes,
    match_classes,
)
from avemo.tasks.stage import Spec, Variables
from media.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureData(StageData):
    """One folder of features.

    Attributes:
      source: the recordings in memory.
    """

    stage: AudioVisualStage
    source: FeatureSet

    @property
    def folder(self) -> str:
        """The folder of features."""
        return self.folders["features"]

    def recordings(self, split: str) -> list[features.Recording]:
        """The recordings of a split."""
        return self.source.recordings(split)

    def splits_of_any(self) -> list[str]:
        """The splits of the data set, or of the fold."""
        return self.source.splits

    def splits_of_all(self) -> list[str]:
        """The splits of the data set, or of the fold."""
        return self.source.splits

    def _first(self) -> list[features.Recording]:
        return self.recordings(self.source.first)

    def sources(self) -> dict[str, pipeline.Source]:
        """The training source of the sequences."""
        size = self.config.data.batch.sequences
        return {"sequences": pipeline.Source(self.folder, features.window_example, size, layout=lambda _: self.layout)}

    @functools.cached_property
    def layout(self) -> layouts.Layout:
        """The training split as tables, or all recordings of which some are a fold's training split."""
        recordings, chosen = self.source.table()
        return layouts.sequences(recordings, self.config, chosen)

    def opened(self) -> Mapping[str, Any]:
        """Training windows over the recordings in memory."""
        data = self.config.data
        return {"sequences": features.Windows(self.recordings("train"), data.sequence_length, data.sequence_hop)}

    def spec(self) -> Spec:
        """Shapes and dtypes of a global training batch, with the lengths of these features."""
        recording = self._first()[0]
        dims = {name: recording.stream(name).shape[-1] for name in self.source.streams}
        return self.stage.spec(self.sizes(), dims, recording.raters.shape[1])

    def standardise(self, variables: Variables) -> Variables:
        """Initial variables that standardise by the moments of the training split, unless `data.standardise` is off."""
        if self.source.by == "off":
            return variables
        constants = {}
        for name in self.source.streams:
            mean, deviation = features.moments(self._first(), name)
            constants[f"{name}_mean"], constants[f"{name}_std"] = jnp.asarray(mean), jnp.asarray(deviation)
        return {**variables, "constants": constants}

    def check_classes(self) -> None:
        """Checks that the model has one class for each class of the labels."""
        if self.config.model.num_classes:
            check_classes(self.config, self.folder, self.class_names)

    def check(self) -> None:
        """Checks that the model has the data's classes and, if it learns raters' traces, its raters."""
        self.check_classes()
        model = self.config.model
        if not model.get("num_raters"):
            return
        raters = self._first()[0].raters.shape[1]
        if model.num_raters != raters:
            raise UserError(
                f"model.num_raters is {model.num_raters}, but {self.folder} has traces of {raters} raters: "
                f"set --config.model.num_raters={raters}, or 0 for the gold standard."
            )

    def score(
        self, predict: Predict, variables: Variables, split: str, scoring: Scoring
    ) -> tuple[Metrics, Predictions]:
        """Scores the recordings of a split."""
        return score(predict, variables, self.recordings(split), self.config, scoring, self.class_names)

    def finish(self, workdir: epath.Path, variables: Variables, result: Mapping[str, Any]) -> None:
        """Records which encoders made the features."""
        if (shards.find_dataset(self.folder) / "extract.json").exists():
            recorded_encoders.record(workdir, self.folder)


def open_data(stage: AudioVisualStage, folder: str | None = None) -> FeatureData:
    """Opens the features that the config names, or `folder`."""
    folder = folder or stage.config.data.features
    if not folder:
        raise UserError("data.features is empty: pass the folder that `launch.py extract` wrote.")
    source = FeatureSet(folder, stage.config)
    return FeatureData(stage, {"features": folder}, source.class_names, source)


def undo_delay(prediction: np.ndarray, delay: float, fps: float) -> np.ndarray:
    """Moves a predicted trace `[T, K]` later by `delay` s, to the time of the labels; the first value fills the gap."""
    shift = min(round(delay * fps), len(prediction) - 1)
    return prediction if shift <= 0 else np.concatenate([np.repeat(prediction[:1], shift, 0), prediction[:-shift]])


def require_labels(recordings: Sequence[features.Recording], config: ConfigDict) -> None:
    """Checks, before anything is computed, that recordings have labels of the kind that the run predicts.

    Raises:
      Unscorable: none has.
    """
    if config.model.num_classes:
        if all(r.label < 0 for r in recordings):
            raise Unscorable("no recording of this split has an emotion label: use a config with model.num_classes=0.")
    elif not any(r.target_mask.any() for r in recordings):
        raise Unscorable(
            "no frame of this split has valence and arousal: its labels are not public, or are emotions "
            "(set model.num_classes)."
        )


def score(
    predict: Predict,
    variables: Variables,
    recordings: Sequence[features.Recording],
    config: ConfigDict,
    scoring: Scoring,
    class_names: Sequence[str],
) -> tuple[Metrics, Predictions]:
    """Predicts and scores whole recordings; `class_names` are those of their labels."""
    require_labels(recordings, config)
    outputs = predict_recordings(predict, variables, recordings, config)
    return score_outputs(outputs, recordings, config, scoring, class_names)


def predict_recordings(
    predict: Predict, variables: Variables, recordings: Sequence[features.Recording], config: ConfigDict
) -> list[dict[str, np.ndarray]]:
    """The outputs of each recording, with at least its T frames in the axis of time.

    All are padded to the longest so that one program serves them all. With `data.eval_length`, they are cut into
    windows of that many frames instead, one every `data.eval_hop`, whose outputs are overlapped and added.
    """
    streams = configuration.streams(config.model)
    length, hop = (_frames(config, name) for name in ("eval_length", "eval_hop"))
    longest = length or max(len(r) for r in recordings)
    cuts = [overlap.starts(len(r), length, hop) for r in recordings]
    pieces = [(number, start) for number, starts in enumerate(cuts) for start in starts]
    size = config.data.eval_batch
    outputs: list[list[dict[str, np.ndarray]]] = [[] for _ in recordings]
    for begin in range(0, len(pieces), size):
        some = pieces[begin : begin + size]
        rows = [features.sequence(recordings[n], start, longest, 0.0, streams) for n, start in some]
        batch = padding.pad_rows(rows, size)
        out = predict(variables, {k: batch[k] for k in inputs(streams)})
        for row, (number, _) in enumerate(some):
            outputs[number].append({k: v[row] for k, v in out.items()})
    return [overlap.add(each, starts) for each, starts in zip(outputs, cuts, strict=True)]


def _frames(config: ConfigDict, name: str) -> int:
    """A number of frames in `config.data`; 0 for "auto"."""
    value = config.data.get(name, "auto")
    if value == "auto":
        return 0
    if not str(value).isdecimal():
        raise UserError(f"data.{name}={value} must be a number of frames, or auto.")
    return int(value)


def score_outputs(
    outputs: Sequence[Mapping[str, np.ndarray]],
    recordings: Sequence[features.Recording],
    config: ConfigDict,
    scoring: Scoring,
    class_names: Sequence[str],
) -> tuple[Metrics, Predictions]:
    """Scores the outputs of whole recordings."""
    if config.model.num_classes:
        return _score_classes(outputs, recordings, scoring, class_names)
    return _score_traces(outputs, recordings, config)


def _score_classes(
    outputs: Sequence[Mapping[str, np.ndarray]],
    recordings: Sequence[features.Recording],
    scoring: Scoring,
    class_names: Sequence[str],
) -> tuple[Metrics, Predictions]:
    pooled = np.stack([o["logits"][: len(r)].mean(0) for o, r in zip(outputs, recordings, strict=True)])
    labels = np.array([r.label for r in recordings])
    labels, probability = match_classes(scoring, class_names, labels, metrics.softmax(pooled))
    keep = labels >= 0
    if not keep.any():
        raise Unscorable("no recording of this split has an emotion that the run knows.")
    return metrics.class_scores(labels[keep], probability[keep]), {
        "recording": np.array([r.name for r in recordings]),
        "label": labels,
        "probability": probability,
    }


def _score_traces(
    outputs: Sequence[Mapping[str, np.ndarray]], recordings: Sequence[features.Recording], config: ConfigDict
) -> tuple[Metrics, Predictions]:
    delay, streams = config.data.delay, configuration.streams(config.model)
    traces = [
        undo_delay(np.asarray(o["traces"][: len(r)]), delay, r.fps) for o, r in zip(outputs, recordings, strict=True)
    ]
    scores = metrics.trace_scores(traces, [r.targets for r in recordings], [r.target_mask for r in recordings])
    predictions = {
        "recording": np.array([r.name for r in recordings]),
        "length": np.array([len(r) for r in recordings]),
        "time": np.concatenate([r.time for r in recordings]),
        "prediction": np.concatenate(traces),
        "target": np.concatenate([r.targets for r in recordings]),
        "mask": np.concatenate([r.target_mask for r in recordings]),
        **{f"{name}_mask": np.concatenate([r.seen(name) for r in recordings]) for name in streams},
    }
    if streams != STREAMS:
        predictions["streams"] = np.array(streams)
    if "gates" in outputs[0]:
        predictions["gates"] = np.concatenate(
            [np.asarray(o["gates"][: len(r)]) for o, r in zip(outputs, recordings, strict=True)]
        )
    return scores, predictions
