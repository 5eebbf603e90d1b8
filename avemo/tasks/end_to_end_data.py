"""The data of end-to-end training: clips, whose pictures and log-mel are read frame by frame."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avemo.configuration import STREAMS
from avemo.data import examples, features, pipeline, shards
from avemo.runs import run_folder, subruns
from avemo.tasks import audiovisual_data
from avemo.tasks.data import Metrics, Predict, Predictions, Scoring, StageData
from avemo.tasks.end_to_end import FIELDS, EndToEndStage
from avemo.tasks.stage import Variables
from media.errors import UserError
from media.images import resize

_LIGHT = ("time", "face_mask", "audio_mask", "targets", "target_mask", "raters")


class Clips:
    """A split of `clips` as recordings without features. Frames and windows are read on demand."""

    def __init__(self, source: shards.Shards):
        self._source = source
        rows = [
            source.fields(i, ("recording", "segment", "subject", "fps", "label", *_LIGHT)) for i in range(len(source))
        ]
        by_name: dict[str, list[int]] = {}
        for index in sorted(range(len(rows)), key=lambda i: (rows[i][0], int(rows[i][1]))):
            by_name.setdefault(rows[index][0], []).append(index)
        self.recordings, self._places = [], {}
        for name, indices in by_name.items():
            joined = {field: np.concatenate([rows[i][5 + n] for i in indices]) for n, field in enumerate(_LIGHT)}
            first = rows[indices[0]]
            nothing = np.zeros((len(joined["time"]), 0), np.float32)
            recording = features.Recording(
                name=name, subject=first[2], fps=float(first[3]), label=int(first[4]),
                time=joined["time"].astype(np.float64), visual=nothing, audio=nothing,
                visual_mask=joined["face_mask"].astype(bool), audio_mask=joined["audio_mask"].astype(bool),
                targets=joined["targets"], target_mask=joined["target_mask"].astype(bool), raters=joined["raters"],
            )  # fmt: skip
            self.recordings.append(recording)
            self._places[name] = [(i, frame) for i in indices for frame in range(len(rows[i][5]))]
        self._record = functools.lru_cache(maxsize=8)(self._source.__getitem__)

    def read(self, recording: features.Recording, begin: int, length: int, size: int) -> dict[str, np.ndarray]:
        """Frames from `begin` on: image uint8 `[L, S, S, 3]` and windows float32 `[L, 96, 64]`, 0 where masked."""
        image = np.zeros((length, size, size, 3), np.uint8)
        windows = np.zeros((length, examples.MEL_ROWS, 64), np.float32)
        for row, (index, frame) in enumerate(self._places[recording.name][begin : begin + length]):
            record = self._record(index)
            if recording.visual_mask[begin + row]:
                image[row] = resize(record["frames"].decode(frame), size)
            if recording.audio_mask[begin + row]:
                first = record["audio_index"][frame]
                windows[row] = record["log_mel"][first : first + examples.MEL_ROWS]
        return {"image": image, "windows": windows}


def frame_example(
    clips: Clips, size: int, item: tuple[features.Recording, int], rng: np.random.Generator | None, config: ConfigDict
) -> dict[str, Any]:
    """One window of frames: its pictures, its log-mel windows, masks and targets."""
    recording, begin = item
    length = config.data.sequence_length
    begin = features.moved_start(len(recording), begin, rng, config)
    row = features.sequence(recording, begin, length, config.data.delay)
    return {**{k: v for k, v in row.items() if k not in STREAMS}, **clips.read(recording, begin, length, size)}


@dataclasses.dataclass(frozen=True, eq=False)
class ClipData(StageData):
    """One folder of clips.

    Attributes:
      clips: opens a split.
    """

    stage: EndToEndStage
    clips: Callable[[str], Clips]

    def _example(self, *item: Any) -> dict[str, Any]:
        return frame_example(self.clips("train"), self.stage.image_size, *item)

    def sources(self) -> dict[str, pipeline.Source]:
        """The training source of the clips."""
        return {"clips": pipeline.Source(self.folders["clips"], self._example, self.config.data.batch.clips)}

    def opened(self) -> Mapping[str, Any]:
        """Training windows over the recordings."""
        data = self.config.data
        return {"clips": features.Windows(self.clips("train").recordings, data.sequence_length, data.sequence_hop)}

    def score(
        self, predict: Predict, variables: Variables, split: str, scoring: Scoring
    ) -> tuple[Metrics, Predictions]:
        """Encodes the recordings of a split and scores them as the audiovisual stage does."""
        clips = self.clips(split)
        audiovisual_data.require_labels(clips.recordings, self.stage.settings)
        encoded = [self._encoded(clips, recording, predict, variables) for recording in clips.recordings]
        return audiovisual_data.score(predict, variables, encoded, self.stage.settings, scoring, self.class_names)

    def _encoded(
        self, clips: Clips, recording: features.Recording, predict: Predict, variables: Variables
    ) -> features.Recording:
        """A recording with the encoders' features; memory is bounded by `data.eval_frames` frames."""
        chunk = self.config.data.eval_frames
        made: dict[str, list[np.ndarray]] = {modality: [] for modality in STREAMS}
        for begin in range(0, len(recording), chunk):
            # The last chunk is padded, so that one program serves all.
            rows = clips.read(recording, begin, chunk, self.stage.image_size)
            keep = min(chunk, len(recording) - begin)
            for modality, field in FIELDS.items():
                made[modality].append(np.asarray(predict(variables, {field: rows[field]})["features"])[:keep])
        visual, audio = np.concatenate(made["visual"]), np.concatenate(made["audio"])
        return dataclasses.replace(recording, visual=visual, audio=audio)

    def finish(self, workdir: epath.Path, variables: Variables, result: Mapping[str, Any]) -> None:
        """Writes each network into `parts/` as a run folder, so that it opens like one."""
        stage, trained = self.stage, variables["params"]
        answer = _as_trained(stage.fusion.config, self.config)
        answer.data.update(features="", delay=self.config.data.delay)
        head = {"params": trained["fusion"], "constants": variables["constants"]}
        made = {"fusion": subruns.Subrun(answer, head, self.class_names)}
        for modality, encoder in stage.encoders.items():
            network = {"params": trained[modality], **variables["statistics"].get(modality, {})}
            classes = run_folder.class_names(stage.runs[modality])
            run = _as_trained(encoder.config, self.config)
            made[modality] = subruns.Subrun(run, network, classes, stage.outputs[modality])
        assert stage.recorded is not None, "open_data asks for the fusion run"
        seen = {"faces": dataclasses.asdict(stage.recorded.faces), "fps": stage.recorded.fps}
        subruns.write(workdir, made, seen, result)


def _as_trained(run: ConfigDict, config: ConfigDict) -> ConfigDict:
    """The config of a run that this one started from, with the steps, seed, metric and moving average of this one."""
    return ConfigDict({**run.to_dict(), **{name: config[name] for name in ("steps", "seed", "best_metric", "ema")}})


def open_data(stage: EndToEndStage, folder: str | None = None) -> ClipData:
    """Opens the clips that the config names, or `folder`."""
    folder = folder or stage.config.data.clips
    if not folder:
        raise UserError("data.clips is empty: pass the folder that `python -m data_prep` wrote.")
    run_folder.require(stage.config.fusion, "fusion")
    names = shards.Shards(folder, shards.splits(folder)[0]).class_names
    return ClipData(stage, {"clips": folder}, tuple(names), functools.cache(functools.partial(_open_split, folder)))


def _open_split(folder: str, split: str) -> Clips:
    return Clips(shards.Shards(folder, split))
