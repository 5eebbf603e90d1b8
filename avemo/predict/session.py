"""A run over one recording: features go in, in pieces of any length, and what the run says of them comes out.

Features equal those of `launch.py extract`; pieces equal a whole sequence.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from avemo.predict.networks import BATCH, Head, Network, open_run
from avemo.runs import encoders, installed, run_folder, subruns
from media.errors import UserError
from media.faces import FaceOptions
from media.images import resize

CHUNK = 128  # frames given to a recurrent network at once
WINDOW, CONTEXT = 1500, 250  # frames seen at once by a network that needs its whole sequence, and their overlap


class FusionStream:
    """A head over a sequence that comes in pieces.

    Where the network carries a state, pieces of `CHUNK` frames follow one another and equal the whole sequence. Where
    it needs the whole (a transformer, a bidirectional GRU, attention over time), up to `WINDOW` frames are seen at
    once, which equals the whole for recordings up to that length; longer ones are cut into windows that overlap by
    2·`CONTEXT` frames, and each gives its middle.
    """

    def __init__(self, head: Head):
        self._head, self._carry = head, None
        self._held: dict[str, np.ndarray] | None = None
        self._given = 0  # frames of the held ones whose outputs were given already

    def push(self, batch: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Takes features `[B, T, D]` and masks `[B, T]` of the next frames; returns outputs that are settled."""
        self._held = (
            {k: np.concatenate([self._held[k], batch[k]], axis=1) for k in batch} if self._held else dict(batch)
        )
        out = []
        size = CHUNK if self._head.streams else WINDOW
        while self._length() >= size + (not self._head.streams):
            out.append(self._run(size, last=False))
        return out

    def finish(self) -> list[dict[str, np.ndarray]]:
        """Returns the outputs of the frames that are still held."""
        return [self._run(self._length(), last=True)] if self._held and self._length() > self._given else []

    def _length(self) -> int:
        return self._held["visual_mask"].shape[1] if self._held else 0

    def _run(self, size: int, last: bool) -> dict[str, np.ndarray]:
        part = {k: v[:, :size] for k, v in self._held.items()}
        if self._head.streams:
            out, self._carry = self._head.apply(part, self._carry, CHUNK)
            self._held = {k: v[:, size:] for k, v in self._held.items()}
            return out
        # Lengths are padded to a few sizes, so that few programs are compiled.
        out, _ = self._head.apply(part, None, min(WINDOW, 1 << (size - 1).bit_length()) if size > 1 else 1)
        until = size if last else size - CONTEXT
        out = {k: v[:, self._given : until] for k, v in out.items()}
        keep = until - CONTEXT
        self._held, self._given = {k: v[:, keep:] for k, v in self._held.items()}, CONTEXT
        return out


class Live:
    """A head frame by frame: from its carry, or over the last `WINDOW` frames where it has none."""

    def __init__(self, head: Head, window: int = CONTEXT):
        self._head, self._window, self._carry = head, window, None
        self._held: dict[str, np.ndarray] | None = None

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs `[B, ...]` of the next frame, whose features are `[B, 1, D]`."""
        if self._head.streams:
            out, self._carry = self._head.apply(batch, self._carry)
            return {k: v[:, 0] for k, v in out.items()}
        held = {k: np.concatenate([self._held[k], v], axis=1) for k, v in batch.items()} if self._held else dict(batch)
        self._held = {k: v[:, -self._window :] for k, v in held.items()}
        out, _ = self._head.apply(self._held, None, self._window)
        return {k: v[:, -1] for k, v in out.items()}


class Models:
    """A run with everything that it needs to see and hear.

    Attributes:
      task: "audiovisual", "teacher", "student" or "audio".
      visual, audio: encoders, None where the run has no such modality.
      head: of a fusion run; None for the run of an encoder, which answers by itself.
      faces, fps: how the training videos were seen.
      class_names: of the logits.
      crop_size: pixels of the faces that a session takes; None = as they were cut out.
      delay: seconds that the raters lag behind; what is predicted at t is what they said at t + delay.
    """

    def __init__(
        self,
        workdir: str,
        visual: str | None = None,
        audio: str | None = None,
        batch_size: int = BATCH,
        opened: dict[tuple[str, str], Network] | None = None,
    ):
        """Opens a run; `opened` holds encoders by (folder, modality) that other runs opened already, and gets ours."""
        opened = {} if opened is None else opened

        def network(folder: str, modality: str, made: encoders.Encoders | None = None) -> Network:
            known = opened.get((folder, modality))
            fingerprint, feature = (made.fingerprints.get(modality), made.outputs[modality]) if made else ("", "")
            stale = known and (
                (fingerprint or known.fingerprint, feature or known.feature) != (known.fingerprint, known.feature)
            )
            if known is None or stale:
                known = opened[folder, modality] = Network(folder, modality, batch_size, fingerprint, feature)
            return known

        workdir = subruns.fusion_of(installed.find(workdir))
        config, variables = open_run(workdir, "run")
        self.workdir, self.task = str(workdir), config.task
        self.config = config
        self.faces, self.fps = FaceOptions(), encoders.DEFAULT_FPS
        self.visual = self.audio = self.head = None
        self.delay = 0.0
        if self.task == "audiovisual":
            found = encoders.resolve(workdir, config, visual, audio)
            self.faces, self.fps = found.faces, found.fps
            self.head = Head(workdir, config, variables)
            # A modality that the fusion does not read is not computed.
            if found.visual and config.model.fusion != "audio":
                self.visual = network(found.visual, "visual", found)
            if found.audio and config.model.fusion != "visual":
                self.audio = network(found.audio, "audio", found)
            self._check_dims()
            self.delay = float(config.data.get("delay") or 0.0)
        elif self.task == "audio":
            self.audio = network(workdir, "audio")
            self.delay = float(config.data.get("delay") or 0.0)
        else:
            self.visual = network(workdir, "visual")
        self.crop_size = None if self.visual is None else self.visual.image_size
        self.classes, self.class_names = self._classes(workdir)

    def session(self, persons: int, live: bool = False) -> "Session":
        """The run over one recording."""
        return Session(self, persons, live)

    def _classes(self, workdir: str) -> tuple[int, tuple[str, ...]]:
        count = self.head.classes if self.head else (self.visual or self.audio).classes
        if not count:
            return 0, ()
        names = run_folder.class_names(workdir)
        return count, names if len(names) == count else tuple(f"class_{i}" for i in range(count))

    def _check_dims(self) -> None:
        for network in (self.visual, self.audio):
            if network is not None and network.dim != self.head.dims[network.modality]:
                raise UserError(
                    f"{self.workdir} was trained on {network.modality} features of length "
                    f"{self.head.dims[network.modality]}, the encoder gives {network.dim}: name the right run by "
                    f"--{network.modality}=RUN."
                )


class Session:
    """The models over one recording with so many persons: features go in, outputs come out in order."""

    def __init__(self, models: Models, persons: int, live: bool = False):
        self._models, self._persons = models, persons
        self._stream = None
        if models.head is not None:
            self._stream = Live(models.head) if live else FusionStream(models.head)
        self._live = live

    def push(
        self, faces: Sequence[np.ndarray], face_mask: np.ndarray, windows: np.ndarray, audio_mask: np.ndarray
    ) -> list[dict[str, np.ndarray]]:
        """Encodes the next T frames and runs the head.

        Args:
          faces: uint8 `[S, S, 3]`, S = `crop_size`, the faces of person 0 in order of time, then those of person 1,
            and so on; face_mask: bool `[B, T]`, which frames show them.
          windows: float32 `[m, 96, 64]` of the frames with sound; audio_mask: bool `[T]`.

        Returns:
          Outputs `[B, t, ...]`, in order, of frames that are settled.
        """
        seen = encode(self._models.visual, faces, face_mask)
        heard = encode(self._models.audio, windows, audio_mask[None])
        return self.fuse(seen, heard, face_mask, audio_mask)

    def fuse(
        self,
        seen: Mapping[str, np.ndarray],
        heard: Mapping[str, np.ndarray],
        face_mask: np.ndarray,
        audio_mask: np.ndarray,
    ) -> list[dict[str, np.ndarray]]:
        """As `push`, of what `encode` made of the faces, `[B, T, ...]`, and of the sound, `[1, T, ...]`."""
        if self._models.head is None:
            values = seen if self._models.visual is not None else heard
            mask = face_mask if self._models.visual is not None else np.repeat(audio_mask[None], self._persons, 0)
            out = {k: np.broadcast_to(v, (self._persons, *v.shape[1:])).copy() for k, v in values.items()}
            for value in out.values():
                value[~mask] = np.nan
            return [{k: out[k] for k in (self._models.visual or self._models.audio).outputs}]
        dims = self._models.head.dims
        shape = face_mask.shape
        batch = {
            "visual": _feature(self._models.visual, seen, shape, dims["visual"]),
            "audio": _feature(self._models.audio, heard, shape, dims["audio"]),
            "visual_mask": face_mask & (self._models.visual is not None),
            "audio_mask": np.broadcast_to(audio_mask[None], shape) & (self._models.audio is not None),
        }
        if self._live:
            return [{k: v[:, None] for k, v in self._stream(batch).items()}]
        return self._stream.push(batch)

    def finish(self) -> list[dict[str, np.ndarray]]:
        """Outputs of the frames that are still held."""
        return [] if self._stream is None or self._live else self._stream.finish()


def encode(network: Network | None, inputs: Sequence[np.ndarray], mask: np.ndarray) -> dict[str, np.ndarray]:
    """Encodes what is present and puts it where it belongs: `[B, T, ...]`, zero where absent."""
    if network is None:
        return {}
    if network.modality == "visual":
        inputs = [resize(image, network.image_size) for image in inputs]
    values = network(inputs)
    out = {k: np.zeros((*mask.shape, *v.shape[1:]), np.float32) for k, v in values.items()}
    for name, value in values.items():
        out[name][mask] = value
    return out


def _feature(network: Network | None, values: dict[str, np.ndarray], shape: tuple, dim: int) -> np.ndarray:
    if network is None:
        return np.zeros((*shape, dim), np.float32)
    return np.broadcast_to(values[network.feature], (*shape, dim))
