"""Live: frames and sound go in as they come, estimates come out; memory and time a frame are constant."""

import collections
import dataclasses
import time as clock
from collections.abc import Iterator, Mapping
from typing import Any

import av
import numpy as np

from avemo import metrics
from avemo.predict.ensemble import Ensemble, open_models
from avemo.predict.session import Models
from avemo.predict.sound import SoundStream
from avemo.predict.stream import crop_of
from avemo.predict.trace import spread_of
from media import audio as sounds
from media.errors import UserError
from media.faces import FaceFrame, FaceOptions, Follower
from media.video import Frame

_LONGEST_WAIT = 1.5  # s of video that a frame waits for its sound


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What the run says of one frame.

    Attributes:
      time: s, as the frame was pushed with.
      valence, arousal: None for a run of emotions, or where nothing is seen or heard by the run of one modality.
      probabilities: by class name; empty for a run of valence and arousal.
      spread: standard deviation over the runs of an ensemble, else over raters: of (valence, arousal) or of each
        probability, in their order; None without either.
      gates: share of (audio, visual), where the fusion has them.
      face, sound: whether a face was seen and something heard; box (x0, y0, x1, y1 as fractions) and confidence of it.
      latency: s from `push` to this estimate, waiting for sound included.
    """

    time: float
    valence: float | None
    arousal: float | None
    probabilities: Mapping[str, float]
    spread: tuple[float, ...] | None
    gates: tuple[float, float] | None
    face: bool
    box: tuple[float, float, float, float]
    confidence: float
    sound: bool
    latency: float


class Predictor:
    """A run over a live recording.

        with Predictor("runs/fusion") as p:
            p.push_audio(samples)       # as it comes
            p.push(frame, time)         # uint8 [H, W, 3], RGB
            p.latest().valence

    Frames are worked on within `push`; the network's state is carried from frame to frame. A frame's sound window is
    centred on it, as in training, so that an estimate follows about half a second after its frame; with `causal=True`
    the window ends at the frame and nothing is waited for (what the network hears is then half a second older than it
    was trained on). A network that needs its whole sequence sees the last 250 frames at every frame.

    Args:
      run: run folder, several separated by commas for their mean, or `Models` that are open already.
      causal: see above.
      sound: whether sound will be pushed; without it, frames do not wait for any.
      sample_rate: of the sound, Hz.
      faces: how faces are found; as for the training videos where it is None. Every frame is looked at.
      visual, audio: encoder runs in place of those that a fusion run names.
    """

    def __init__(
        self,
        run: str | Models | Ensemble,
        *,
        causal: bool = False,
        sound: bool = True,
        sample_rate: int = sounds.SAMPLE_RATE,
        faces: FaceOptions | None = None,
        visual: str | None = None,
        audio: str | None = None,
    ):
        # One face and one window at a time: a larger batch would only be padding.
        self.models = open_models(run, visual, audio, batch_size=1) if isinstance(run, str) else run
        options = dataclasses.replace(faces or self.models.faces, detect_every=1)
        self._compile()
        self._session = self.models.session(1, live=True)
        self._feed: collections.deque[Frame] = collections.deque()
        self._faces: Iterator[FaceFrame] | None = None
        if self.models.visual is not None:
            options.check()
            self._faces = Follower(options)(iter(lambda: self._feed.popleft() if self._feed else None, None))
        self._waits = sound and not causal and self.models.audio is not None
        self._sound = SoundStream(0.0, causal)
        self._resampler = None
        if sample_rate != sounds.SAMPLE_RATE:
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=sounds.SAMPLE_RATE)
        self._rate = sample_rate
        self._first_sample: float | None = None
        self._waiting: collections.deque[tuple[FaceFrame, Any, float]] = collections.deque()
        self._latest: Estimate | None = None
        self._ready: collections.deque[Estimate] = collections.deque(maxlen=10_000)
        self._latencies: collections.deque[float] = collections.deque(maxlen=10_000)
        self._last = -np.inf

    def _compile(self) -> None:
        """Runs two blank frames, so that the first real ones do not wait for compilers."""
        sounds.log_mel(np.zeros(sounds.WINDOW, np.float32))  # librosa imports what it needs when it is first called
        session = self.models.session(1, live=True)
        faces = [np.zeros((self.models.crop_size or 96,) * 2 + (3,), np.uint8)] if self.models.visual else []
        for _ in range(2):
            windows = np.zeros((1, sounds.EXAMPLE_ROWS, sounds.NUM_BANDS), np.float32)
            session.push(faces, np.ones((1, 1), bool) & bool(faces), windows, np.ones(1, bool))

    def __enter__(self) -> "Predictor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def push(self, frame: np.ndarray, time: float) -> None:
        """Takes the next picture, uint8 `[H, W, 3]` RGB, shown at `time` (s, on the clock of the sound, rising).

        Raises:
          UserError: the picture has another shape or type, or `time` does not rise.
        """
        if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
            raise UserError(f"push takes a picture uint8 [H, W, 3] RGB, not {frame.dtype} {list(frame.shape)}.")
        if time <= self._last:
            raise UserError(f"push got time {time} after {self._last}: the times of frames must rise.")
        self._last, began = time, clock.perf_counter()
        if self._faces is None:
            face, image = FaceFrame(time, b"", False, (0.0, 0.0, 0.0, 0.0), 0.0), None
        else:
            self._feed.append(Frame(time, frame))
            face = next(self._faces)
            image = crop_of(face, self.models.crop_size)
        self._waiting.append((face, image, began))
        self._advance()

    def push_audio(self, samples: np.ndarray, time: float = 0.0) -> None:
        """Takes the next samples `[n]`: float in [-1, 1], or int16; mono, at `sample_rate`.

        `time` is that of the very first sample of all, s on the clock of the frames; later calls follow on.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1:
            raise UserError(f"push_audio takes mono samples [n], not {list(samples.shape)}.")
        scale = np.float32(1 / 32768) if samples.dtype == np.int16 else np.float32(1)
        samples = samples.astype(np.float32) * scale
        self._first_sample = time if self._first_sample is None else self._first_sample
        for part in self._resampled(samples):
            self._sound.push(part, self._first_sample, block=sounds.WINDOW)
        self._advance()

    def _resampled(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        if self._resampler is None:
            yield samples
            return
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = self._rate
        yield from (part.to_ndarray().reshape(-1) for part in self._resampler.resample(frame))

    def _advance(self, everything: bool = False) -> None:
        while self._waiting:
            time = self._waiting[0][0].time
            waits = self._waits and not self._sound.settled(time) and self._last - time < _LONGEST_WAIT
            if waits and not everything:
                return
            self._estimate(*self._waiting.popleft())

    def _estimate(self, face: FaceFrame, image: np.ndarray | None, began: float) -> None:
        windows, heard = self._sound.windows(np.array([face.time]))
        crops = [] if image is None else [image]
        (out,) = self._session.push(crops, np.array([[face.mask]]), windows, heard)
        out = {name: value[0, 0] for name, value in out.items()}
        names = self.models.class_names
        known = names and np.isfinite(out["logits"]).all()
        probabilities = dict(zip(names, metrics.softmax(out["logits"]).tolist(), strict=True)) if known else {}
        traces = [float(v) if np.isfinite(v) else None for v in out["traces"]] if "traces" in out else [None, None]
        spread = spread_of(out)
        spread = None if spread is None else tuple(spread.tolist())
        gates = tuple(float(g) for g in out["gates"]) if "gates" in out else None
        latency = clock.perf_counter() - began
        self._latencies.append(latency)
        self._latest = Estimate(
            face.time, *traces, probabilities, spread, gates,
            face.mask, face.box, face.confidence, bool(heard[0]), latency,
        )  # fmt: skip
        self._ready.append(self._latest)

    def latest(self) -> Estimate | None:
        """The newest estimate; None before the first."""
        return self._latest

    def drain(self) -> Iterator[Estimate]:
        """The estimates made since the last call, in order (at most the last 10,000)."""
        while self._ready:
            yield self._ready.popleft()

    def close(self) -> None:
        """Works on the frames that still wait for sound: no more of it will come."""
        self._sound.finish()
        self._advance(everything=True)

    def latency(self) -> dict[str, float]:
        """Seconds from `push` to estimate over the last frames: median, 95th percentile and the longest."""
        if not self._latencies:
            return {}
        values = np.array(self._latencies)
        median, high = np.percentile(values, (50, 95))
        return {"median": float(median), "p95": float(high), "longest": float(values.max())}
