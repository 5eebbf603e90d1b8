"""The data of fusion: recordings of cached features, in memory; and the scores of whole recordings."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avemo import metrics
from avemo.data import features, layouts, padding, pipeline, shards
from avemo.runs import recorded_encoders
from avemo.tasks.audiovisual import INPUTS, MODALITIES, AudioVisualStage
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
      recordings: loads the recordings of a split.
    """

    stage: AudioVisualStage
    recordings: Callable[[str], list[features.Recording]]

    @property
    def folder(self) -> str:
        """The folder of features."""
        return self.folders["features"]

    def _first(self) -> list[features.Recording]:
        return self.recordings(_first_split(self.folder))

    def sources(self) -> dict[str, pipeline.Source]:
        """The training source of the sequences."""
        size = self.config.data.batch.sequences
        return {"sequences": pipeline.Source(self.folder, features.window_example, size, layout=lambda _: self.layout)}

    @functools.cached_property
    def layout(self) -> layouts.Layout:
        """The training split as tables."""
        return layouts.sequences(self.recordings("train"), self.config)

    def opened(self) -> Mapping[str, Any]:
        """Training windows over the recordings in memory."""
        data = self.config.data
        return {"sequences": features.Windows(self.recordings("train"), data.sequence_length, data.sequence_hop)}

    def spec(self) -> Spec:
        """Shapes and dtypes of a global training batch, with the lengths of these features."""
        recording = self._first()[0]
        dims = {modality: getattr(recording, modality).shape[-1] for modality in MODALITIES}
        return self.stage.spec(self.sizes(), dims, recording.raters.shape[1])

    def standardise(self, variables: Variables) -> Variables:
        """Initial variables that standardise by the moments of the training split."""
        constants = {}
        for modality in MODALITIES:
            mean, deviation = features.moments(self._first(), modality)
            constants[f"{modality}_mean"], constants[f"{modality}_std"] = jnp.asarray(mean), jnp.asarray(deviation)
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
    recordings = functools.cache(functools.partial(_recordings, folder))
    names = shards.Shards(folder, _first_split(folder)).class_names
    return FeatureData(stage, {"features": folder}, tuple(names), recordings)


def _first_split(folder: str) -> str:
    splits = shards.splits(folder)
    return "train" if "train" in splits else splits[0]


def _recordings(folder: str, split: str) -> list[features.Recording]:
    return features.load(folder, split)[0]


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
    """Scores whole recordings, padded to the longest of the split so that one program serves them all.

    `class_names` are those of the recordings' labels.
    """
    require_labels(recordings, config)
    longest = max(len(r) for r in recordings)
    size = config.data.eval_batch
    outputs: list[dict[str, np.ndarray]] = []
    for begin in range(0, len(recordings), size):
        rows = [features.sequence(r, 0, longest, 0.0) for r in recordings[begin : begin + size]]
        batch = padding.pad_rows(rows, size)
        out = predict(variables, {k: batch[k] for k in INPUTS})
        outputs += [{k: v[i] for k, v in out.items()} for i in range(len(rows))]
    if config.model.num_classes:
        return _score_classes(outputs, recordings, scoring, class_names)
    return _score_traces(outputs, recordings, config.data.delay)


def _score_classes(
    outputs: list[dict[str, np.ndarray]],
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
    outputs: list[dict[str, np.ndarray]], recordings: Sequence[features.Recording], delay: float
) -> tuple[Metrics, Predictions]:
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
        "visual_mask": np.concatenate([r.visual_mask for r in recordings]),
        "audio_mask": np.concatenate([r.audio_mask for r in recordings]),
    }
    if "gates" in outputs[0]:
        predictions["gates"] = np.concatenate(
            [np.asarray(o["gates"][: len(r)]) for o, r in zip(outputs, recordings, strict=True)]
        )
    return scores, predictions
