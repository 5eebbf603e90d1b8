"""The trace of a recording: what a run predicts for every person and frame."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from avemo import metrics
from media.faces import bridge_gaps

EXPERTS = {"visual": "face", "audio": "voice"}  # what a modality is called in a trace


@dataclasses.dataclass(frozen=True)
class Trace:
    """T frames with B persons; if nobody is seen, one person without a face.

    Attributes:
      time: float64 `[T]`, seconds from the first frame (from the first sample if there is only sound).
      persons: the persons' numbers, `B` of them.
      face: bool `[B, T]`, whether the face was seen.
      box: float32 `[B, T, 4]`, x0, y0, x1, y1 as fractions of the picture; short gaps are bridged, 0 without a box.
      confidence: float32 `[B, T]`, the detector's.
      sound: bool `[T]`, whether anything is heard around the frame.
      values: what the run predicts, among "traces" float32 `[B, T, 2]` (valence, arousal), "gates" `[B, T, 2]` (share
        of audio, visual), "probabilities" `[B, T, C]` and "clip" `[B, C]`, and "spread" with the shape of traces or
        probabilities (standard deviation over the runs of an ensemble, otherwise over raters).
        Of a fusion of classifiers also what one modality says alone: "face" `[B, T, Cv]`, "voice" `[B, T, Ca]` and for
        the clip "face_clip" `[B, Cv]`, "voice_clip" `[B, Ca]`; NaN where it is absent.
      class_names: names of the probabilities.
      expert_names: names of the classes of "face" and "voice", if there are such values.
      notes: the input and the run, for `trace.json`.
    """

    time: np.ndarray
    persons: tuple[int, ...]
    face: np.ndarray
    box: np.ndarray
    confidence: np.ndarray
    sound: np.ndarray
    values: Mapping[str, np.ndarray]
    class_names: tuple[str, ...]
    notes: Mapping[str, Any]
    expert_names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.time)

    @property
    def fps(self) -> float:
        """Frames per second."""
        return float(self.notes["fps"])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the drawn curves: valence and arousal, or the classes."""
        return ("valence", "arousal") if "traces" in self.values else self.class_names

    @property
    def curves(self) -> np.ndarray:
        """The drawn curves `[B, T, K]`, in the order of `names`."""
        return self.values["traces" if "traces" in self.values else "probabilities"]


class Collector:
    """Gathers a trace chunk by chunk."""

    def __init__(self) -> None:
        self._seen: list[dict[str, np.ndarray]] = []
        self._outputs: list[dict[str, np.ndarray]] = []
        self._experts: list[dict[str, np.ndarray]] = []

    def frames(self, **arrays: np.ndarray) -> None:
        """Adds frames: time `[T]`, sound `[T]`, face and confidence `[B, T]`, box `[B, T, 4]`."""
        self._seen.append(arrays)

    def outputs(self, chunks: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Adds outputs `[B, t, ...]`, in order."""
        self._outputs += [dict(chunk) for chunk in chunks]

    def experts(self, chunks: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Adds what each modality says alone, logits `[B, t, C]`, in order."""
        self._experts += [dict(chunk) for chunk in chunks]

    def trace(
        self,
        max_gap: float,
        class_names: tuple[str, ...],
        notes: Mapping[str, Any],
        keep: Sequence[int] | None = None,
        expert_names: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> Trace:
        """Joins the chunks. `keep` lists the persons to keep; None keeps those seen for at least half a second."""
        time = np.concatenate([s["time"] for s in self._seen])
        sound = np.concatenate([s["sound"] for s in self._seen])
        face, box, confidence = (
            np.concatenate([s[k] for s in self._seen], axis=1) for k in ("face", "box", "confidence")
        )
        outputs = {k: np.concatenate([o[k] for o in self._outputs], axis=1) for k in self._outputs[0]}
        if keep is None:
            shortest = min(0.5 * notes["fps"], 0.5 * len(time))
            keep = [p for p in range(len(face)) if face[p].sum() >= max(1, shortest)] or [0]
        keep = list(keep)
        box = np.stack([bridge_gaps(time, box[p], face[p], max_gap) for p in keep])
        values = _values({k: v[keep] for k, v in outputs.items()})
        named = {}
        for modality, name in EXPERTS.items():
            if modality in expert_names and self._experts:
                logits = np.concatenate([said[modality] for said in self._experts], axis=1)[keep]
                values[name] = metrics.softmax(logits).astype(np.float32)
                values[f"{name}_clip"] = clip_probabilities(logits)
                named[name] = expert_names[modality]
        return Trace(time, tuple(keep), face[keep], box, confidence[keep], sound, values, class_names, notes, named)


def _values(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    values = {k: outputs[k] for k in ("traces", "gates") if k in outputs}
    spread = spread_of(outputs)
    if spread is not None:
        values["spread"] = spread
    if "logits" in outputs:
        values["probabilities"] = metrics.softmax(outputs["logits"]).astype(np.float32)
        values["clip"] = clip_probabilities(outputs["logits"])
    return values


def clip_probabilities(logits: np.ndarray) -> np.ndarray:
    """The clip's probabilities `[B, C]` from logits `[B, T, C]`, averaged over known frames, as clips are scored."""
    known = np.isfinite(logits).all(-1, keepdims=True)
    mean = np.where(known, logits, 0).sum(1) / np.maximum(known.sum(1), 1)
    return np.where(known.any(1), metrics.softmax(mean), np.nan).astype(np.float32)


def spread_of(outputs: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Standard deviation `[..., K]` over an ensemble's runs ("members"), otherwise over raters; None without either."""
    for name in ("members", "rater_traces"):
        if name in outputs:
            return outputs[name].std(axis=-2)
    return None


def gaps(time: np.ndarray, present: np.ndarray, step: float) -> list[tuple[float, float]]:
    """Stretches (begin, end in seconds) of frames that are not `present`; each frame lasts until the next one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], present, [True]]).astype(np.int8)))
    ends = np.append(time[1:], time[-1] + step)
    return [(float(time[a]), float(ends[b - 1])) for a, b in edges.reshape(-1, 2)]
