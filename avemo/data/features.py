"""Cached features in memory: per-frame features of whole recordings, in named streams, cut into training windows."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from avemo import configuration
from avemo.configuration import STREAMS
from avemo.data.examples import delayed_targets
from avemo.data.shards import Shards, find_dataset
from media.errors import UserError, unknown
from media.files import read_json

# The output of an encoder that is its feature, unless `extract --layer` names another.
OUTPUTS = {"visual": "descriptor", "audio": "embedding"}
_TIMED = ("targets", "target_mask")


@dataclasses.dataclass(frozen=True)
class Recording:
    """One recording's features, T frames at `fps` Hz.

    Attributes:
      name, subject: identifiers.
      fps: frames per second.
      time: float64 `[T]`, s.
      visual, audio: float32 `[T, D]`.
      visual_mask, audio_mask: bool `[T]`, True for frames with a face, with sound.
      targets, target_mask: float32 `[T, 2]` valence and arousal, bool `[T]`.
      raters: float32 `[T, R, 2]`; R may be 0.
      label: emotion of the whole clip, or −1.
      others: frames and masks of streams besides these two, as `NAME` and `NAME_mask`.
      group: the culture, session or the like that it belongs to; "" if unknown.
    """

    name: str
    subject: str
    fps: float
    time: np.ndarray
    visual: np.ndarray
    audio: np.ndarray
    visual_mask: np.ndarray
    audio_mask: np.ndarray
    targets: np.ndarray
    target_mask: np.ndarray
    raters: np.ndarray
    label: int
    others: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    group: str = ""

    def __len__(self) -> int:
        return len(self.time)

    def stream(self, name: str) -> np.ndarray:
        """The frames of a stream, float32 `[T, D]`."""
        return self.others[name] if name in self.others else getattr(self, name)

    def seen(self, name: str) -> np.ndarray:
        """The mask of a stream, bool `[T]`."""
        return self.stream(f"{name}_mask")


def streams_of(folder: str, split: str) -> tuple[str, ...]:
    """The streams of a data set: the fields that have a mask, in the order of its card, or else by name."""
    fields = Shards(folder, split).features
    found = sorted(name for name in fields if f"{name}_mask" in fields)
    if set(found) == set(STREAMS):
        return STREAMS
    card = find_dataset(folder) / "card.json"
    listed = [stream["name"] for stream in read_json(card).get("streams") or ()] if card.exists() else []
    return tuple(sorted(found, key=lambda name: (listed.index(name) if name in listed else len(listed), name)))


def load(folder: str, split: str, streams: Sequence[str] = STREAMS) -> tuple[list[Recording], list[str]]:
    """Reads all recordings of a split of a `features` data set into memory, and the class names of its labels.

    Args:
      folder: the data set.
      split: the split.
      streams: the streams to read.

    Raises:
      UserError: the folder holds no features, or not these streams.
    """
    source = Shards(folder, split)
    missing = [f for f in (*_TIMED, "recording", "time", "label") if f not in source.features]
    if missing:
        raise UserError(f"{folder} has no field {missing[0]!r}: name features made by `launch.py extract`.")
    there = streams_of(folder, split)
    for name in streams:
        if name not in there:
            raise unknown(f"stream (model.streams) of {folder}", name, there)
    out = []
    for index in range(len(source)):
        record = source[index]
        frames = {
            **{name: np.asarray(record[name], np.float32) for name in streams},
            **{f"{name}_mask": np.asarray(record[f"{name}_mask"], bool) for name in streams},
        }
        nothing = {
            **dict.fromkeys(STREAMS, np.zeros((len(record["time"]), 0), np.float32)),
            **{f"{name}_mask": np.zeros(len(record["time"]), bool) for name in STREAMS},
        }
        out.append(
            Recording(
                name=record["recording"],
                subject=record["subject"],
                fps=float(record["fps"]),
                time=np.asarray(record["time"], np.float64),
                label=int(record["label"]),
                raters=record["raters"],
                group=str(record.get("group", "")),
                others={name: x for name, x in frames.items() if name not in nothing},
                **{name: frames.get(name, empty) for name, empty in nothing.items()},
                **{k: np.asarray(record[k]) for k in _TIMED},
            )
        )
    return out, source.class_names


def moments(recordings: Sequence[Recording], stream: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation `[D]` of a stream's features over the frames where it is present, in float64."""
    features = np.concatenate([r.stream(stream)[r.seen(stream)] for r in recordings]).astype(np.float64)
    dim = recordings[0].stream(stream).shape[-1]
    if not len(features):
        return np.zeros(dim, np.float32), np.ones(dim, np.float32)
    deviation = features.std(0)
    # A floor, so that a constant feature is not scaled up to noise.
    return features.mean(0).astype(np.float32), np.maximum(deviation, 1e-3 * max(1e-6, deviation.max())).astype(
        np.float32
    )


def sequence(
    recording: Recording, start: int, length: int, delay: float, streams: Sequence[str] = STREAMS
) -> dict[str, Any]:
    """Frames `start … start + length` as arrays padded to `length`; `mask` bool is False for padding.

    Targets are moved earlier by `delay` s before the cut, so that no label is lost between two windows.
    """
    targets, target_mask = delayed_targets(recording.targets, recording.target_mask, delay, recording.fps)
    # Each rater lags like the gold standard, so the traces move by the same delay.
    raters, rater_mask = delayed_targets(recording.raters, np.ones(len(recording), bool), delay, recording.fps)
    fields = {
        **{field: recording.stream(field) for field in stream_fields(streams)},
        "raters": raters,
        "rater_mask": rater_mask,
        "targets": np.where(target_mask[:, None], targets, np.float32(0)),
        "target_mask": target_mask,
        "mask": np.ones(len(recording), bool),
    }
    out = {}
    for name, value in fields.items():
        inside = value[start : start + length]
        short = length - len(inside)
        out[name] = np.pad(inside, [(0, short)] + [(0, 0)] * (value.ndim - 1)) if short else inside
    return {**out, "label": np.int32(recording.label)}


def stream_fields(streams: Sequence[str]) -> tuple[str, ...]:
    """The fields that hold the streams: their frames, then their masks."""
    return (*streams, *(f"{name}_mask" for name in streams))


class Windows:
    """Training windows over recordings as a random-access source: item i is `(recording, start)` of window i.

    A window starts every `hop` frames. A recording shorter than a window gives one padded window.
    """

    def __init__(self, recordings: Sequence[Recording], length: int, hop: int) -> None:
        self._recordings, self._length = recordings, length
        self._starts = [(n, s) for n, r in enumerate(recordings) for s in range(0, max(1, len(r) - length + 1), hop)]

    def __len__(self) -> int:
        return len(self._starts)

    def __repr__(self) -> str:
        return f"Windows({len(self)} of {self._length} frames)"

    def place(self, index: int) -> tuple[int, int]:
        """The number of a window's recording, and the window's first frame."""
        return self._starts[int(index) % len(self)]

    def __getitem__(self, index: int) -> tuple[Recording, int]:
        number, start = self.place(index)
        return self._recordings[number], start


def moved_start(frames: int, start: int, rng: np.random.Generator | None, config: ConfigDict) -> int:
    """The start of a window in a recording of `frames` frames; a generator moves it by up to half a hop."""
    length, jitter = config.data.sequence_length, config.data.sequence_hop // 2
    if rng is None or frames <= length:
        return start
    return int(np.clip(start + rng.integers(-jitter, jitter + 1), 0, frames - length))


def window_example(item: tuple[Recording, int], rng: np.random.Generator | None, config: ConfigDict) -> dict[str, Any]:
    """One window of `config.data.sequence_length` frames; in training its start is moved by up to half a hop."""
    recording, start = item
    start = moved_start(len(recording), start, rng, config)
    return sequence(
        recording, start, config.data.sequence_length, config.data.delay, configuration.streams(config.model)
    )
