"""Reads what the stages left behind: run folders, `demo.json`, the rater ceiling."""

import dataclasses
import functools
import json
import re
import zipfile
from typing import Any

import numpy as np
from etils import epath

from avemo.runs import metrics_log
from media.errors import UserError

# The order in which the system is built; runs of other names follow, by name.
ORDER = ("teacher", "student", "audio", "fusion", "fusion_audio", "fusion_visual")
MODALITIES = ("audio", "visual", "both")


@dataclasses.dataclass(frozen=True)
class Traces:
    """Predicted and gold traces of one recording, T frames; columns are valence, arousal.

    Attributes:
      recording: its name.
      time: float `[T]`, s.
      prediction, target: float `[T, 2]`; target is NaN where nobody rated.
      visual_mask, audio_mask: bool `[T]`, frames with a face, with sound.
      gates: float `[T, 2]`, the fusion's weights of audio and visual, or None.
    """

    recording: str
    time: np.ndarray
    prediction: np.ndarray
    target: np.ndarray
    visual_mask: np.ndarray
    audio_mask: np.ndarray
    gates: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """One run folder; what an unfinished run has not written yet is empty.

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
        """The last step of which anything was logged."""
        return max([int(line.get("step") or 0) for line in self.history], default=0)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes of the categorical head, if it has one."""
        return [str(name) for name in self.result.get("class_names") or ()]

    @property
    def modality(self) -> str | None:
        """For a fusion run, which modality it hears or sees: "audio", "visual" or "both"; None for other stages."""
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
        return tuple(sorted(names, key=lambda n: ({"dev": 0, "test": 1}.get(n, 2), n)))

    def predictions(self, split: str) -> dict[str, np.ndarray]:
        """The arrays of `predictions/<split>.npz`.

        Raises:
          UserError: there is no such file, or it cannot be read.
        """
        if split in self._cache:
            return self._cache[split]
        if split not in self.splits:
            raise UserError(
                f"{self.folder} has no predictions of split {split!r} (there are: {', '.join(self.splits) or 'none'}): "
                "run `launch.py evaluate` on it first."
            )
        path = self.folder / "predictions" / f"{split}.npz"
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                self._cache[split] = dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} cannot be read ({error}): run `launch.py evaluate` again.") from error
        return self._cache[split]

    @functools.cached_property
    def _cache(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    def traces(self, split: str) -> list[Traces]:
        """Traces of every recording of a split; empty where the run predicts classes, or windows without a time."""
        arrays = self.predictions(split)
        if not {"recording", "length", "prediction", "target"} <= set(arrays):
            return []
        ends = np.cumsum(arrays["length"]).tolist()
        total = ends[-1] if ends else 0
        mask = np.asarray(arrays.get("mask", np.ones(total)), bool)
        seen, heard = (np.asarray(arrays.get(f"{m}_mask", np.ones(total)), bool) for m in ("visual", "audio"))
        target = np.where(mask[:, None], arrays["target"], np.nan)
        out, begin = [], 0
        for name, end in zip(arrays["recording"], ends, strict=True):
            part = slice(begin, end)
            # Without a clock, frames are counted.
            time = np.asarray(arrays["time"][part], float) if "time" in arrays else np.arange(end - begin, dtype=float)
            gates = arrays["gates"][part] if "gates" in arrays else None
            if len(time):
                out.append(
                    Traces(str(name), time, arrays["prediction"][part], target[part], seen[part], heard[part], gates)
                )
            begin = end
        return out

    def classes(self, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Labels `[N]`, probabilities `[N, C]` and groups `[N]` (recordings, else rows) of labelled rows, or None."""
        arrays = self.predictions(split)
        if not {"label", "probability"} <= set(arrays):
            return None
        keep = arrays["label"] >= 0
        if not keep.any():
            return None
        groups = arrays.get("recording")
        groups = np.arange(len(keep)) if groups is None or len(groups) != len(keep) else groups
        return arrays["label"][keep], arrays["probability"][keep], groups[keep]


def _read_json(path: epath.Path) -> dict[str, Any]:
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
      UserError: it is no run folder, or one of its files is broken.
    """
    folder = epath.Path(folder)
    if not is_run(folder):
        raise UserError(f"{folder} is not a run folder (no config.json): train it first with `launch.py train`.")
    history = [line for line in metrics_log.read(folder / "metrics.jsonl") if isinstance(line, dict)]
    return Run(folder.name, folder, _read_json(folder / "config.json"), _read_json(folder / "result.json"), history)


def load_all(workdir: str | epath.Path) -> list[Run]:
    """Reads every run in `workdir` (or `workdir` itself, if it is one), in the order in which the system is built.

    Raises:
      UserError: there is none.
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


@dataclasses.dataclass(frozen=True)
class Notes:
    """What `demo.json` and the corpus say about the whole folder.

    Attributes:
      corpus: "synthetic", "real", or "" where nothing says.
      source: folder of the real corpora, or "".
      seed: the seed, or None.
      stages: one dict a stage, `{"name", "command", "seconds", "skipped"}`, in the order they ran.
      ceiling: `{reference: {"valence": CCC, "arousal": CCC}}`, the best that the raters' noise allows.
    """

    corpus: str
    source: str
    seed: Any
    stages: list[dict[str, Any]]
    ceiling: dict[str, dict[str, float]]


def notes(workdir: str | epath.Path) -> Notes:
    """Reads `demo.json` (stages as a list or by name) and `corpus/ceiling.json`; both may be missing."""
    workdir = epath.Path(workdir)
    demo = _read_json(workdir / "demo.json")
    stages = demo.get("stages") or []
    if isinstance(stages, dict):
        stages = [{"name": name, **stage} for name, stage in stages.items() if isinstance(stage, dict)]
    stages = [stage for stage in stages if isinstance(stage, dict) and "name" in stage]
    ceiling = demo.get("ceiling") or _read_json(workdir / "corpus" / "ceiling.json")
    return Notes(
        str(demo.get("corpus") or ""), str(demo.get("source") or ""), demo.get("seed"), stages, _ceilings(ceiling)
    )


def _ceilings(value: Any) -> dict[str, dict[str, float]]:
    """Turns `{"valence": x}` or `{"ccc": {"valence": {reference: x}}}` into `{reference: {"valence": x}}`."""
    value = value.get("ccc", value) if isinstance(value, dict) else {}
    out: dict[str, dict[str, float]] = {}
    for dimension in ("valence", "arousal"):
        given = value.get(dimension)
        given = given if isinstance(given, dict) else {"gold_vs_latent": given}
        for reference, x in given.items():
            if isinstance(x, int | float) and np.isfinite(x):
                out.setdefault(str(reference), {})[dimension] = float(x)
    return out
