"""Runs opened networks over one recording: faces and sound in pieces of any length, to predictions in order.

Features equal those of `launch.py extract`, and the pieces together equal the whole sequence.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from avemo import metrics
from avemo.predict.fusion import FusionStream
from avemo.predict.models import Models, RunNetworks
from avemo.runs.encoder import Encoder
from media.images import resize

Outputs = dict[str, np.ndarray]


class Session:
    """Opened runs over one recording.

    Several runs give "members" `[B, t, M, K]` (traces, or probabilities, of each) beside their mean.
    """

    def __init__(self, models: Models, persons: int, live: bool = False):
        self._runs, self._persons = models.runs, persons
        self._streams = [FusionStream(run.fusion, live) if run.fusion else None for run in models.runs]
        self._held: list[list[Outputs]] = [[] for _ in models.runs]
        self._experts, self._priors = tuple(models.expert_names), models.expert_priors
        self._said: list[Outputs] = []

    def push(
        self, faces: Sequence[np.ndarray], face_mask: np.ndarray, windows: np.ndarray, audio_mask: np.ndarray
    ) -> list[Outputs]:
        """Encodes the next T frames and runs the fusion.

        Args:
          faces: uint8 `[S, S, 3]`, S = `crop_size`: the faces of person 0 in order of time, then those of person 1,
            and so on; face_mask: bool `[B, T]`, which frames show them.
          windows: float32 `[m, 96, 64]` of the frames with sound; audio_mask: bool `[T]`.

        Returns:
          Outputs `[B, t, ...]`, in order, of the frames that all runs have settled.
        """
        encoded: dict[int, Outputs] = {}  # an encoder that several runs share is computed once
        for held, run, stream in zip(self._held, self._runs, self._streams, strict=True):
            if run.visual is not None and id(run.visual) not in encoded:
                encoded[id(run.visual)] = encode(run.visual, faces, face_mask)
            if run.audio is not None and id(run.audio) not in encoded:
                encoded[id(run.audio)] = encode(run.audio, windows, audio_mask[None])
            seen, heard = (encoded[id(e)] if e is not None else {} for e in (run.visual, run.audio))
            if self._experts:
                said = {"visual": (seen, face_mask), "audio": (heard, audio_mask[None])}
                self._said.append({name: self._alone(name, *said[name]) for name in self._experts})
            if stream is None:
                held.append(self._heads(run, seen, heard, face_mask, audio_mask))
            else:
                held += stream.push(_features(run, stream.dims, seen, heard, face_mask, audio_mask))
        return self._settled()

    def finish(self) -> list[Outputs]:
        """Returns the outputs of the frames that are still held."""
        for held, stream in zip(self._held, self._streams, strict=True):
            held += stream.finish() if stream is not None else []
        return self._settled()

    def experts(self) -> list[Outputs]:
        """What each modality says alone, of the frames pushed since the last call: logits `[B, T, C]` by modality, NaN
        where it is absent, without the prior that the fusion takes out. Empty unless the run is a fusion of encoders
        with classes."""
        said, self._said = self._said, []
        return said

    def _alone(self, modality: str, values: Outputs, mask: np.ndarray) -> np.ndarray:
        logits = np.where(mask[..., None], values["logits"] - self._priors.get(modality, np.float32(0)), np.nan)
        return np.broadcast_to(logits, (self._persons, *logits.shape[1:]))

    def _heads(
        self, run: RunNetworks, seen: Outputs, heard: Outputs, face_mask: np.ndarray, audio_mask: np.ndarray
    ) -> Outputs:
        """The outputs of an encoder's own heads; NaN where the modality is absent."""
        values, mask = (seen, face_mask) if run.visual else (heard, np.repeat(audio_mask[None], self._persons, 0))
        heads = next(encoder.heads for encoder in (run.visual, run.audio) if encoder is not None)
        out = {k: np.broadcast_to(values[k], (self._persons, *values[k].shape[1:])).copy() for k in heads}
        for value in out.values():
            value[~mask] = np.nan
        return out

    def _settled(self) -> list[Outputs]:
        if len(self._runs) == 1:
            (settled,), self._held = self._held, [[]]
            return settled
        count = min(sum(_length(out) for out in held) for held in self._held)
        if not count:
            return []
        settled = []
        for i, held in enumerate(self._held):
            whole = {name: np.concatenate([out[name] for out in held], axis=1) for name in held[0]}
            settled.append({name: value[:, :count] for name, value in whole.items()})
            rest = {name: value[:, count:] for name, value in whole.items()}
            self._held[i] = [rest] if _length(rest) else []
        return [average(settled)]


def encode(encoder: Encoder, inputs: Sequence[np.ndarray] | np.ndarray, mask: np.ndarray) -> Outputs:
    """Encodes the inputs where `mask` `[B, T]` is true; returns `[B, T, ...]`, zero elsewhere."""
    if encoder.modality == "visual":
        inputs = [resize(image, encoder.image_size) for image in inputs]
    values = encoder(inputs)
    out = {k: np.zeros((*mask.shape, *v.shape[1:]), np.float32) for k, v in values.items()}
    for name, value in values.items():
        out[name][mask] = value
    return out


def average(outputs: Sequence[Outputs]) -> Outputs:
    """Averages the outputs `[B, T, ...]` of several runs.

    Returns:
      "traces", the mean, or "logits", the logarithm of the mean probability; "members" `[B, T, M, K]`, the traces or
      probabilities of each run; "gates", their mean, if all runs have them.
    """
    if "traces" in outputs[0]:
        members = np.stack([out["traces"] for out in outputs], axis=2)
        averaged = {"traces": members.mean(2)}
    else:
        members = np.stack([metrics.softmax(out["logits"]) for out in outputs], axis=2).astype(np.float32)
        averaged = {"logits": np.log(np.maximum(members.mean(2), np.float32(1e-12)))}
    averaged["members"] = members
    if all("gates" in out for out in outputs):
        averaged["gates"] = np.mean([out["gates"] for out in outputs], axis=0)
    return averaged


def _features(
    run: RunNetworks,
    dims: Mapping[str, int],
    seen: Outputs,
    heard: Outputs,
    face_mask: np.ndarray,
    audio_mask: np.ndarray,
) -> Outputs:
    """The fusion's inputs: features `[B, T, D]` and masks `[B, T]`; a modality without an encoder is absent."""
    shape = face_mask.shape

    def feature(encoder: Encoder | None, values: Outputs, modality: str) -> np.ndarray:
        if encoder is None:
            return np.zeros((*shape, dims[modality]), np.float32)
        return np.broadcast_to(values[encoder.feature], (*shape, encoder.dim))

    return {
        "visual": feature(run.visual, seen, "visual"),
        "audio": feature(run.audio, heard, "audio"),
        "visual_mask": face_mask & (run.visual is not None),
        "audio_mask": np.broadcast_to(audio_mask[None], shape) & (run.audio is not None),
    }


def _length(outputs: Outputs) -> int:
    return next(iter(outputs.values())).shape[1]
