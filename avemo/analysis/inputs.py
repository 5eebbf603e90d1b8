"""The data that a run saw: features, faces, clips and their sound."""

import dataclasses
import inspect
from typing import Any

import numpy as np

from avemo import configuration
from avemo.analysis.run import AnalysisRun
from avemo.data import features, mixture, shards
from media import audio
from media.errors import UserError, unknown
from media.images import resize


def features_of(run: AnalysisRun, recording: str | None = None, split: str | None = None) -> features.Recording:
    """The features of one recording (by default the first) of a split (by default dev) that a fusion run reads.

    Raises:
      UserError: the features are missing, or have no such recording.
    """
    folder = run.data("features")
    names = shards.splits(folder)
    streams = configuration.streams(run.config["model"])
    found, _ = features.load(folder, split or ("dev" if "dev" in names else names[0]), streams)
    chosen = next((one for one in found if recording in (None, one.name)), None)
    if chosen is None:
        raise unknown("recording", str(recording), [one.name for one in found])
    return chosen


def subjects(run: AnalysisRun, split: str | None = None) -> dict[str, str]:
    """Who speaks in each recording of a split, from the features or clips that a run was trained on.

    Raises:
      UserError: the features or clips are missing.
    """
    role = "features" if run.config.get("data", {}).get("features") else "clips"
    source = mixture.open_split(run.data(role), run.split(split))
    return dict(source.fields(i, ("recording", "subject")) for i in range(len(source)))


@dataclasses.dataclass(frozen=True)
class Faces:
    """Face images of a split: images uint8 `[N, S, S, 3]` RGB, label int `[N]` (−1 is unlabelled), class names."""

    images: np.ndarray
    label: np.ndarray
    class_names: tuple[str, ...]


def faces(run: AnalysisRun, split: str | None = None, count: int | None = None) -> Faces:
    """The faces that an expression run was scored on, in the order of its predictions and at its image size."""
    source = mixture.open_split(run.data("faces"), run.split(split))
    size = int(run.config["model"]["image_size"])
    index = range(len(source) if count is None else min(count, len(source)))
    records = [source.fields(i, ("image", "label")) for i in index]
    images = np.stack([resize(image.decode(0), size) for image, _ in records])
    return Faces(images, np.array([int(label) for _, label in records]), tuple(source.class_names))


def clip_window(run: AnalysisRun, recording: str, begin: float, end: float, split: str | None = None) -> dict[str, Any]:
    """What was seen and heard between `begin` and `end` (s) of a recording.

    Returns:
      `frames` uint8 `[n, S, S, 3]` in `[begin, end)`, `time` `[n]`, `face_mask` `[n]`, and their `log_mel` float32
      `[m, 64]`.

    Raises:
      UserError: the clips are missing, or have no such recording.
    """
    clips = run.data("clips")
    source = mixture.open_split(clips, run.split(split))
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
        raise UserError(f"{clips} has nothing of {recording!r} between {begin} and {end} s.")
    return {
        "frames": np.stack(frames),
        "time": np.concatenate(times),
        "face_mask": np.concatenate(masks).astype(bool),
        "log_mel": np.concatenate(mels) if mels else np.zeros((0, 64), np.float32),
    }


def sound_of(log_mel: np.ndarray, iterations: int = 24) -> np.ndarray:
    """Sound float32 `[n]`, 16 kHz, of a log-mel spectrogram: rough but audible.

    Records hold no waveform. Magnitudes are the least-norm solution for the 64 bands; phases are Griffin and Lim's.
    """
    import librosa  # slow to import

    if not len(log_mel):
        return np.zeros(0, np.float32)
    bands = np.maximum(np.exp(log_mel) - audio.LOG_OFFSET, 0)
    magnitude = np.maximum(bands @ np.linalg.pinv(audio.mel_matrix()), 0).T
    # It was `random_state` before librosa 1.0.
    name = "rng" if "rng" in inspect.signature(librosa.griffinlim).parameters else "random_state"
    seed: dict[str, Any] = {name: 0}
    return librosa.griffinlim(
        magnitude.astype(np.float32),
        n_iter=iterations,
        hop_length=audio.HOP,
        win_length=audio.WINDOW,
        n_fft=audio.FFT,
        **seed,
    )
