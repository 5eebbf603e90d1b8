"""Opening a run and the data that it saw."""

import dataclasses
import html
import json
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

from avemo.data import features, mixture, shards
from avemo.report import page
from avemo.report.notes import read_notes
from avemo.runs import checkpoints, installed, paths, reader
from media.errors import UserError, unknown


@dataclasses.dataclass(frozen=True)
class AnalysisRun(reader.Run):
    """A run folder with its tables; predictions are read when they are asked for, weights by `variables`."""

    def curves(self, split: str | None = None) -> pd.DataFrame:
        """What was logged in training: a row a step and split, a column a value."""
        table = pd.DataFrame(self.history)
        if table.empty:
            return table
        table = table if split is None else table[table["split"] == split].dropna(axis=1, how="all")
        return table.set_index(["split", "step"]).sort_index()

    def fields(self) -> pd.DataFrame:
        """The config: a row a field, by its dotted name."""
        rows = pd.json_normalize(self.config).iloc[0]
        return rows.rename("value").rename_axis("field").to_frame()

    def metrics(self) -> pd.DataFrame:
        """Final scores: a row a metric, a column a split."""
        return pd.DataFrame(self.result.get("metrics", {}))

    def variables(self, which: str = "best") -> dict[str, Any]:
        """Weights on the host, whatever devices wrote them; `which` is "best" or "latest"."""
        return checkpoints.load(self.folder, which)[2]

    def split(self, name: str | None = None) -> str:
        """`name`, by default "dev" or else the first split that has predictions.

        Raises:
          UserError: the run has no predictions of it.
        """
        if name is None and self.splits:
            return self.splits[0]
        if name not in self.splits:
            raise UserError(
                f"{self.folder} has no predictions of split {name!r} (there are: {', '.join(self.splits) or 'none'})."
            )
        return name

    def data(self, role: str) -> str:
        """Returns the data folder of a role ("faces", "triplets", "clips", "features"), where it is now.

        A fusion run's "clips" are the ones that its features were made from.

        Raises:
          UserError: the run has no such data, or the data cannot be found.
        """
        data = self.config.get("data", {})
        folder = paths.find_data(data.get(role) or "", self.folder)
        if not folder and role == "clips" and data.get("features"):
            features = shards.find_dataset(paths.find(data["features"], self.folder))
            card = features / "extract.json"
            folder = paths.find(json.loads(card.read_text()).get("clips") or "", features) if card.exists() else ""
        if not folder or not all(epath.Path(part.folder).exists() for part in mixture.parse(folder)):
            raise UserError(f"the {role} of {self.folder} are not at {folder or 'any place it names'}: they moved.")
        return str(folder)


def load(folder: str | epath.Path) -> AnalysisRun:
    """Opens a run folder, local or gs://, finished or not, or a released run by its name; no flags, no accelerator.

    Raises:
      UserError: it is no run folder, or one of its files is broken.
    """
    run = reader.load(installed.find(str(folder)))
    return AnalysisRun(**{field.name: getattr(run, field.name) for field in dataclasses.fields(run)})


def browse(*runs: reader.Run, height: int = 720) -> Any:
    """The report of these runs inside the notebook: curves, and traces against gold that zoom and brush.

    Raises:
      UserError: IPython is not there.
    """
    try:
        from IPython.display import HTML
    except ImportError as error:
        raise UserError("browse shows a page in a notebook: `pip install ipython`, or use avemo.report.") from error
    text = page.render(list(runs), read_notes(runs[0].folder.parent))
    frame = (
        f'<iframe srcdoc="{html.escape(text)}" title="Report" style="width:100%;height:{height}px;border:0"></iframe>'
    )
    return HTML(frame)


def features_of(run: AnalysisRun, recording: str | None = None, split: str | None = None) -> features.Recording:
    """The features of one recording (by default the first) of a split (by default dev) that a fusion run reads.

    Raises:
      UserError: the features are gone, or have no such recording.
    """
    folder = run.data("features")
    names = shards.splits(folder)
    rows, _ = features.load(folder, split or ("dev" if "dev" in names else names[0]))
    chosen = next((row for row in rows if recording in (None, row.name)), None)
    if chosen is None:
        raise unknown("recording", str(recording), [row.name for row in rows])
    return chosen


def subjects(run: AnalysisRun, split: str | None = None) -> dict[str, str]:
    """Who speaks in each recording of a split, from the features or clips that a run was trained on.

    Raises:
      UserError: those are gone.
    """
    role = "features" if run.config.get("data", {}).get("features") else "clips"
    source = shards.Shards(run.data(role), run.split(split))
    return dict(source.fields(i, ("recording", "subject")) for i in range(len(source)))


@dataclasses.dataclass(frozen=True)
class Faces:
    """Face images of a split: images uint8 `[N, S, S, 3]` RGB, label int `[N]` (−1: none), names of the classes."""

    images: np.ndarray
    label: np.ndarray
    class_names: tuple[str, ...]


def faces(run: AnalysisRun, split: str | None = None, count: int | None = None) -> Faces:
    """The faces that an expression run was scored on, in the order of its predictions, at the size it sees."""
    from media.images import resize

    source = mixture.open_split(run.data("faces"), run.split(split))
    size = int(run.config["model"]["image_size"])
    index = range(len(source) if count is None else min(count, len(source)))
    rows = [source.fields(i, ("image", "label")) for i in index]
    images = np.stack([resize(image.decode(0), size) for image, _ in rows])
    return Faces(images, np.array([int(label) for _, label in rows]), tuple(source.class_names))


def clip_window(run: AnalysisRun, recording: str, begin: float, end: float, split: str | None = None) -> dict[str, Any]:
    """What was seen and heard in a stretch of a recording.

    Returns:
      `frames` uint8 `[n, S, S, 3]` of the frames in `[begin, end)`, `time` `[n]`, `face_mask` `[n]`, and `log_mel`
      float32 `[m, 64]`, the rows that belong to them.

    Raises:
      UserError: the clips are gone, or have no such recording.
    """
    source = mixture.open_split(run.data("clips"), run.split(split))
    frames, times, masks, mels = [], [], [], []
    for i in range(len(source)):
        name, time = source.fields(i, ("recording", "time"))
        inside = np.flatnonzero((time >= begin) & (time < end))
        if name != recording or not inside.size:
            continue
        record = source[i]
        frames += [record["frames"].decode(j) for j in inside]
        times.append(time[inside])
        masks.append(record["face_mask"][inside])
        heard = record["audio_index"][inside][record["audio_mask"][inside].astype(bool)]
        if heard.size:  # from the middle of the first window to the middle of the last
            mels.append(record["log_mel"][heard[0] + 48 : heard[-1] + 49])
    if not frames:
        raise UserError(f"{source.folder} has nothing of {recording!r} between {begin} and {end} s.")
    return {
        "frames": np.stack(frames),
        "time": np.concatenate(times),
        "face_mask": np.concatenate(masks).astype(bool),
        "log_mel": np.concatenate(mels) if mels else np.zeros((0, 64), np.float32),
    }


def sound_of(log_mel: np.ndarray, iterations: int = 24) -> np.ndarray:
    """Sound float32 `[n]`, 16 kHz, of a log-mel spectrogram: rough but audible.

    Records hold no waveform. Magnitudes are the least-norm ones that give these 64 bands, phases Griffin and Lim's.
    """
    import librosa

    from media import audio

    if not len(log_mel):
        return np.zeros(0, np.float32)
    bands = np.maximum(np.exp(log_mel) - audio.LOG_OFFSET, 0)
    magnitude = np.maximum(bands @ np.linalg.pinv(audio.mel_matrix()), 0).T
    return librosa.griffinlim(
        magnitude.astype(np.float32),
        n_iter=iterations,
        hop_length=audio.HOP,
        win_length=audio.WINDOW,
        n_fft=audio.FFT,
        random_state=0,
    )
