"""Live prediction: frames and sound in as they come, estimates out; constant memory and time per frame."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Any

import av
import numpy as np

from avemo import metrics
from avemo.predict import face_tracks
from avemo.predict.models import Models, open_models
from avemo.predict.session import Session
from avemo.predict.sound_windows import SoundWindows
from avemo.predict.trace import EXPERTS, spread_of
from avemo.runs import shipped
from media.audio import EXAMPLE_ROWS, NUM_BANDS, SAMPLE_RATE, WINDOW, log_mel
from media.errors import UserError
from media.faces import FaceFrame, FaceOptions, Follower
from media.video import Frame

_LONGEST_WAIT = 1.5  # seconds of video for which a frame waits for its sound


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What the run predicts for one frame.

    Attributes:
      time: the frame's time as given to `push`, in seconds.
      valence, arousal: None if the run predicts emotions, or if a run of one modality sees or hears nothing.
      probabilities: by class name; empty if the run predicts valence and arousal.
      spread: standard deviation of (valence, arousal) or of each probability, over the runs of an ensemble, otherwise
        over raters; None without either.
      gates: share of (audio, visual); None if the fusion has no gates.
      face: whether a face was seen.
      box, confidence: the face's box (x0, y0, x1, y1 as fractions of the picture) and the detector's confidence.
      sound: whether anything was heard.
      latency: seconds from `push` to this estimate, including the wait for sound.
      alone: what "face" and "voice" say alone, probabilities by class name; without one that is absent.
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
    alone: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)


class Predictor:
    """A run over a live recording.

        with Predictor("runs/fusion") as p:
            p.push_audio(samples)       # as it comes
            p.push(frame, time)         # uint8 [H, W, 3], RGB
            p.latest().valence

    `push` does the work; the network's state is carried from frame to frame. As in training, the sound window is
    centred on its frame, so an estimate follows its frame by about half a second. With `causal=True` the window ends at
    the frame and nothing waits, but the network then hears sound half a second older than in training. A network that
    needs its whole sequence sees the last 250 frames at every frame.

    Args:
      run: run folder, several separated by commas for their mean, or opened `Models`; by default the release that
        avemo carries.
      causal: see above.
      sound: whether sound will be pushed; if not, frames do not wait for it.
      sample_rate: of the sound, in Hz.
      faces: how faces are found; None = as for the training videos. The detector looks at every frame.
      visual, audio: encoder runs to use instead of those recorded in a fusion run.
    """

    def __init__(
        self,
        run: str | Models = shipped.RUN,
        *,
        causal: bool = False,
        sound: bool = True,
        sample_rate: int = SAMPLE_RATE,
        faces: FaceOptions | None = None,
        visual: str | None = None,
        audio: str | None = None,
    ):
        # One face and one window at a time: a larger batch would only be padding.
        self.models = open_models(run, visual, audio, batch_size=1) if isinstance(run, str) else run
        options = dataclasses.replace(faces or self.models.faces, detect_every=1)
        self._compile()
        self._session = Session(self.models, 1, live=True)
        self._feed: collections.deque[Frame] = collections.deque()
        self._faces: Iterator[FaceFrame] | None = None
        if self.models.visual is not None:
            options.check()
            self._faces = Follower(options)(iter(lambda: self._feed.popleft() if self._feed else None, None))
        self._waits = sound and not causal and self.models.audio is not None
        self._sound = SoundWindows(0.0, causal)
        self._resampler = None
        if sample_rate != SAMPLE_RATE:
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        self._rate = sample_rate
        self._first_sample: float | None = None
        self._waiting: collections.deque[tuple[FaceFrame, Any, float]] = collections.deque()
        self._latest: Estimate | None = None
        self._ready: collections.deque[Estimate] = collections.deque(maxlen=10_000)
        self._latencies: collections.deque[float] = collections.deque(maxlen=10_000)
        self._last = -np.inf

    def _compile(self) -> None:
        """Runs two blank frames, so that the first real ones do not wait for compilation."""
        log_mel(np.zeros(WINDOW, np.float32))  # librosa imports lazily, on its first call
        session = Session(self.models, 1, live=True)
        faces = [np.zeros((self.models.crop_size or 96,) * 2 + (3,), np.uint8)] if self.models.visual else []
        for _ in range(2):
            windows = np.zeros((1, EXAMPLE_ROWS, NUM_BANDS), np.float32)
            session.push(faces, np.ones((1, 1), bool) & bool(faces), windows, np.ones(1, bool))

    def __enter__(self) -> "Predictor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def push(self, frame: np.ndarray, time: float) -> None:
        """Takes the next picture, uint8 `[H, W, 3]` RGB, shown at `time` (seconds on the sound's clock, increasing).

        Raises:
          UserError: wrong shape or type of the picture, or `time` does not increase.
        """
        if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
            raise UserError(f"push takes an RGB picture uint8 [H, W, 3], not {frame.dtype} {list(frame.shape)}.")
        if time <= self._last:
            raise UserError(f"push got time {time} after {self._last}: the times of frames must increase.")
        self._last, began = time, perf_counter()
        if self._faces is None:
            face, image = face_tracks.no_face(time), None
        else:
            self._feed.append(Frame(time, frame))
            face = next(self._faces)
            image = face_tracks.crop(face, self.models.crop_size)
        self._waiting.append((face, image, began))
        self._advance()

    def push_audio(self, samples: np.ndarray, time: float = 0.0) -> None:
        """Takes the next samples `[n]`: float in [-1, 1], or int16; mono, at `sample_rate`.

        `time` is the time of the very first sample, in seconds on the frames' clock. Later calls ignore it and continue
        where the last one ended.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1:
            raise UserError(f"push_audio takes mono samples [n], not {list(samples.shape)}.")
        scale = np.float32(1 / 32768) if samples.dtype == np.int16 else np.float32(1)
        samples = samples.astype(np.float32) * scale
        self._first_sample = time if self._first_sample is None else self._first_sample
        for block in self._resampled(samples):
            self._sound.push(block, self._first_sample, block=WINDOW)
        self._advance()

    def _resampled(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        if self._resampler is None:
            yield samples
            return
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = self._rate
        yield from (block.to_ndarray().reshape(-1) for block in self._resampler.resample(frame))

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
        alone = {
            EXPERTS[modality]: dict(
                zip(self.models.expert_names[modality], metrics.softmax(logits[0, 0]).tolist(), strict=True)
            )
            for said in self._session.experts()
            for modality, logits in said.items()
            if np.isfinite(logits).all()
        }
        names = self.models.class_names
        known = names and np.isfinite(out["logits"]).all()
        probabilities = dict(zip(names, metrics.softmax(out["logits"]).tolist(), strict=True)) if known else {}
        valence = arousal = None
        if "traces" in out:
            valence, arousal = (float(v) if np.isfinite(v) else None for v in out["traces"])
        spread = spread_of(out)
        gates = (float(out["gates"][0]), float(out["gates"][1])) if "gates" in out else None
        latency = perf_counter() - began
        self._latencies.append(latency)
        self._latest = Estimate(
            time=face.time,
            valence=valence,
            arousal=arousal,
            probabilities=probabilities,
            spread=None if spread is None else tuple(spread.tolist()),
            gates=gates,
            face=face.mask,
            box=face.box,
            confidence=face.confidence,
            sound=bool(heard[0]),
            latency=latency,
            alone=alone,
        )
        self._ready.append(self._latest)

    def latest(self) -> Estimate | None:
        """The newest estimate; None before the first one."""
        return self._latest

    def drain(self) -> Iterator[Estimate]:
        """Yields the estimates made since the last call, in order (at most the last 10,000)."""
        while self._ready:
            yield self._ready.popleft()

    def close(self) -> None:
        """Ends the sound, and estimates the frames that still wait for it."""
        self._sound.finish()
        self._advance(everything=True)

    def latency(self) -> dict[str, float]:
        """Seconds from `push` to estimate over the last 10,000 frames: median, 95th percentile and longest."""
        if not self._latencies:
            return {}
        values = np.array(self._latencies)
        median, high = np.percentile(values, (50, 95))
        return {"median": float(median), "p95": float(high), "longest": float(values.max())}
