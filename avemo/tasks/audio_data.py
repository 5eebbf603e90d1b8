"""The data of the audio encoder: prepared clips, cut into log-mel windows."""

import dataclasses
from typing import Any

import numpy as np

from avemo import metrics
from avemo.data import examples, layouts, mixture, pipeline
from avemo.tasks.data import (
    Metrics,
    Predict,
    Predictions,
    Scoring,
    StageData,
    Unscorable,
    first_class_names,
    match_classes,
)
from avemo.tasks.stage import Stage, Variables
from media.errors import UserError

_READ = ("targets", "target_mask", "mask", "label")


@dataclasses.dataclass(frozen=True, eq=False)
class AudioData(StageData):
    """One folder of clips, or several."""

    @property
    def folder(self) -> str:
        """The folder of clips."""
        return self.folders["clips"]

    def sources(self) -> dict[str, pipeline.Source]:
        """The training source of the clips."""
        layout = layouts.sound(self.config)
        size = self.config.data.batch.clips
        return {"clips": pipeline.Source(self.folder, examples.window_example, size, layout=lambda records: layout)}

    def score(
        self, predict: Predict, variables: Variables, split: str, scoring: Scoring
    ) -> tuple[Metrics, Predictions]:
        """Scores one split: the CCC of its windows' traces, or accuracy, UAR and F1 of its clips."""
        found = self._predict(predict, variables, split)
        if not self.config.model.num_classes:
            return self._score_traces(found)
        scores, predictions = self._score_classes(found, scoring)
        records = mixture.open_split(self.folder, split)
        names = np.array([records.fields(i, ("recording",))[0] for i in range(len(records))])
        return scores, {"recording": names, **predictions}

    def _predict(self, predict: Predict, variables: Variables, split: str) -> dict[str, np.ndarray]:
        source = pipeline.Source(self.folder, examples.window_example, self.config.data.eval_batch, split)
        name = "logits" if self.config.model.num_classes else "traces"
        found: dict[str, list[np.ndarray]] = {}
        for batch in pipeline.eval_batches(source, self.config):
            keep = batch["weight"] > 0
            values: dict[str, Any] = {name: predict(variables, {"windows": batch["windows"]})[name]}
            for key, value in (values | {k: batch[k] for k in _READ}).items():
                found.setdefault(key, []).append(np.asarray(value)[keep])
        return {k: np.concatenate(v) for k, v in found.items()}

    def _score_classes(self, found: dict[str, np.ndarray], scoring: Scoring) -> tuple[Metrics, Predictions]:
        weight = found["mask"].astype(np.float32)[..., None]
        pooled = (found["logits"] * weight).sum(1) / np.maximum(weight.sum(1), 1)
        label, probability = match_classes(scoring, self.class_names, found["label"], metrics.softmax(pooled))
        keep = label >= 0
        if not keep.any():
            raise Unscorable(
                f"no clip of {self.folder} has an emotion label in this split: use a config with model.num_classes=0."
            )
        scores = metrics.class_scores(label[keep], probability[keep])
        return scores, {"label": label, "probability": probability}

    def _score_traces(self, found: dict[str, np.ndarray]) -> tuple[Metrics, Predictions]:
        if not found["target_mask"].any():
            raise Unscorable(
                f"no window of {self.folder} has valence and arousal in this split: set model.num_classes for emotions."
            )
        scores = metrics.trace_scores(list(found["traces"]), list(found["targets"]), list(found["target_mask"]))
        return scores, {"prediction": found["traces"], "target": found["targets"], "mask": found["target_mask"]}


def open_data(stage: Stage, folder: str | None = None) -> AudioData:
    """Opens the clips that the config names, or `folder`."""
    folder = folder or stage.config.data.clips
    if not folder:
        raise UserError("data.clips is empty: pass the folder that `python -m data_prep` wrote.")
    return AudioData(stage, {"clips": folder}, first_class_names(folder))
