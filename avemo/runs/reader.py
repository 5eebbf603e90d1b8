"""Reads run folders, finished or not, without opening their networks."""

import dataclasses
import functools
import json
import re
from typing import Any

import numpy as np
from etils import epath

from avemo.runs import metrics_log, run_folder
from media.errors import UserError

# The order in which the stages are trained; runs with other names follow, by name.
ORDER = ("teacher", "student", "audio", "fusion", "fusion_audio", "fusion_visual")
MODALITIES = ("audio", "visual", "both")


@dataclasses.dataclass(frozen=True)
class RecordingTraces:
    """Predicted and gold traces of one recording, T frames; columns are valence and arousal.

    Attributes:
      recording: its name.
      time: float `[T]`, s.
      prediction, target: float `[T, 2]`; target is NaN where nobody rated.
      visual_mask, audio_mask: bool `[T]`, frames with a face and frames with sound.
      gates: float `[T, 2]`, the fusion's weights of audio and visual, or None.
    """

    recording: str
    time: np.ndarray
    prediction: np.ndarray
    target: np.ndarray
    visual_mask: np.ndarray
    audio_mask: np.ndarray
    gates: np.ndarray | None = None

    @property
    def rated(self) -> np.ndarray:
        """Frames with a gold value in both dimensions, bool `[T]`."""
        return np.isfinite(self.target).all(-1)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run folder. What an unfinished run has not written yet is empty.

    Attributes:
      name: the folder's name.
      folder: the folder.
      config: `config.json`.
      result: `result.json`.
      history: the lines of `metrics.jsonl`.
    """

    name: str
    folder: epath.Path
    config: dict[str, Any]
    result: dict[str, Any]
    history: list[dict[str, Any]]

    @property
    def task(self) -> str:
        """The stage's kind, `config.task`."""
        return str(self.result.get("task") or self.config.get("task") or "?")

    @property
    def last_step(self) -> int:
        """The last step with a line in the log."""
        return max([int(line.get("step") or 0) for line in self.history], default=0)

    @property
    def class_names(self) -> list[str]:
        """Class names of the categorical head; empty if the run has none."""
        return [str(name) for name in self.result.get("class_names") or ()]

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """The final scores by split, dev first."""
        found = self.result.get("metrics")
        found = found if isinstance(found, dict) else {}
        return {split: found[split] for split in sorted(found, key=split_rank) if isinstance(found[split], dict)}

    @property
    def unscored(self) -> dict[str, str]:
        """Splits that could not be scored when the run ended, each with the reason."""
        found = self.result.get("unscored")
        return {str(split): str(reason) for split, reason in found.items()} if isinstance(found, dict) else {}

    @property
    def modality(self) -> str | None:
        """Which modality a fusion run uses: "audio", "visual" or "both"; None for other stages."""
        if self.task != "audiovisual" and not self.name.startswith("fusion"):
            return None
        model = self.config.get("model")
        fusion = str(model.get("fusion", "")) if isinstance(model, dict) else ""
        for name in ("audio", "visual"):
            if re.fullmatch(rf"{name}(_only)?", fusion) or self.name == f"fusion_{name}":
                return name
        return "both"

    @functools.cached_property
    def splits(self) -> tuple[str, ...]:
        """Splits with saved predictions, dev first."""
        folder = self.folder / "predictions"
        names = sorted(p.stem for p in folder.glob("*.npz")) if folder.exists() else []
        return tuple(sorted(names, key=split_rank))

    def predictions(self, split: str) -> dict[str, np.ndarray]:
        """The arrays of `predictions/<split>.npz`.

        Raises:
          UserError: the file is missing or cannot be read.
        """
        if split in self._cache:
            return self._cache[split]
        if split not in self.splits:
            raise UserError(
                f"{self.folder} has no predictions of split {split!r} (it has: {', '.join(self.splits) or 'none'}): "
                "run `launch.py evaluate` on it first."
            )
        self._cache[split] = run_folder.read_predictions(self.folder / "predictions" / f"{split}.npz")
        return self._cache[split]

    @functools.cached_property
    def _cache(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    def traces(self, split: str) -> list[RecordingTraces]:
        """Traces of every recording of a split; empty if the run predicts classes, or windows without a time."""
        arrays = self.predictions(split)
        if not {"recording", "length", "prediction", "target"} <= set(arrays):
            return []
        ends = np.cumsum(arrays["length"]).tolist()
        total = ends[-1] if ends else 0
        mask = np.asarray(arrays.get("mask", np.ones(total)), bool)
        seen, heard = (np.asarray(arrays.get(f"{m}_mask", np.ones(total)), bool) for m in ("visual", "audio"))
        target = np.where(mask[:, None], arrays["target"], np.nan)
        clock = np.asarray(arrays["time"], float) if "time" in arrays else None
        out, begin = [], 0
        for name, end in zip(arrays["recording"], ends, strict=True):
            frames = slice(begin, end)
            # Without a clock, frames are counted.
            time = np.arange(end - begin, dtype=float) if clock is None else clock[frames]
            prediction, gates = arrays["prediction"][frames], arrays["gates"][frames] if "gates" in arrays else None
            if len(time):
                out.append(
                    RecordingTraces(str(name), time, prediction, target[frames], seen[frames], heard[frames], gates)
                )
            begin = end
        return out

    def classes(self, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Labels `[N]`, probabilities `[N, C]` and groups `[N]` of the labelled items; None if no item has a label.

        Groups are the names of the recordings, or the items' numbers if those are unknown.
        """
        arrays = self.predictions(split)
        if not {"label", "probability"} <= set(arrays):
            return None
        keep = arrays["label"] >= 0
        if not keep.any():
            return None
        groups = arrays.get("recording")
        groups = np.arange(len(keep)) if groups is None or len(groups) != len(keep) else groups
        return arrays["label"][keep], arrays["probability"][keep], groups[keep]


def split_rank(split: str) -> tuple[int, str]:
    """Sorts splits: dev, test, then the others by name."""
    return {"dev": 0, "test": 1}.get(split, 2), split


def read_json(path: epath.Path) -> dict[str, Any]:
    """Reads a JSON object; empty if the file is missing or holds something else.

    Raises:
      UserError: the file cannot be read.
    """
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove it and run the stage that wrote it again.") from error
    return value if isinstance(value, dict) else {}


def is_run(folder: epath.Path) -> bool:
    """Whether a folder is a run folder."""
    return any((folder / name).exists() for name in ("config.json", "result.json", "metrics.jsonl"))


def load(folder: str | epath.Path) -> Run:
    """Reads a run folder, finished or not.

    Raises:
      UserError: it is not a run folder, or one of its files is broken.
    """
    folder = epath.Path(folder)
    if not is_run(folder):
        raise UserError(f"{folder} is not a run folder (no config.json): train it first with `launch.py train`.")
    history = [line for line in metrics_log.read(folder / "metrics.jsonl") if isinstance(line, dict)]
    return Run(folder.name, folder, read_json(folder / "config.json"), read_json(folder / "result.json"), history)


def load_all(workdir: str | epath.Path) -> list[Run]:
    """Reads every run in `workdir` (or `workdir` itself, if it is one), in the order in which the stages are trained.

    Raises:
      UserError: no run was found.
    """
    workdir = epath.Path(workdir)
    if not workdir.is_dir():
        raise UserError(f"{workdir} is not a folder: pass the --workdir of `launch.py demo`.")
    folders = [p for p in workdir.iterdir() if p.is_dir() and is_run(p)]
    if not folders and is_run(workdir):
        folders = [workdir]
    if not folders:
        raise UserError(f"{workdir} holds no run (no sub-folder with config.json): run `launch.py demo` on it first.")
    runs = [load(folder) for folder in folders]
    return sorted(runs, key=lambda r: (ORDER.index(r.name) if r.name in ORDER else len(ORDER), r.name))
