"""The log-mel window of each frame, computed from sound as it arrives.

Rows and alignment come from `media.audio`; rows that no later frame needs are dropped.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from media import audio

_LOOK_AHEAD = 0.52  # seconds of sound after a frame that complete its window: half a window and one row
_FIRST_WINDOW = (audio.EXAMPLE_ROWS * audio.HOP + audio.WINDOW) / audio.SAMPLE_RATE
_BLOCK = audio.SAMPLE_RATE  # samples analysed at a time


class SoundWindows:
    """Takes samples as they come and returns the windows of frames.

    Args:
      origin: time 0 on the container's clock, in seconds; None = the first sample.
      causal: windows end at the frame instead of being centred on it, so they need no later sound.
    """

    def __init__(self, origin: float | None = 0.0, causal: bool = False):
        self._origin, self._shift = origin, audio.EXAMPLE_ROWS / 2 / audio.ROWS_PER_SECOND if causal else 0.0
        self._start: float | None = None
        self._pending: list[np.ndarray] = []
        self._held = self._count = self._dropped = 0
        self._rows = np.zeros((0, audio.NUM_BANDS), np.float32)
        self._peak = np.zeros(0, np.float32)
        self._ended = False

    @property
    def end(self) -> float:
        """Time up to which sound has been analysed, in seconds; infinite once it has ended."""
        if self._ended:
            return math.inf
        return -math.inf if self._start is None else self._start + (self._count - self._held) / audio.SAMPLE_RATE

    def push(self, samples: np.ndarray, start: float, block: int = _BLOCK) -> None:
        """Takes samples float32 `[n]` (mono, 16 kHz); `start` is the time of the very first sample."""
        if self._start is None:
            self._start = start - (start if self._origin is None else self._origin)
        self._pending.append(np.nan_to_num(samples))
        self._held += len(samples)
        self._count += len(samples)
        if self._held >= block:
            self._analyse()

    def finish(self) -> None:
        """Declares that the sound has ended."""
        self._analyse()
        self._ended = True

    def _analyse(self) -> None:
        samples = np.concatenate(self._pending) if self._pending else np.zeros(0, np.float32)
        ready = audio.num_rows(len(samples))
        if ready:
            rows = audio.log_mel(samples[: (ready - 1) * audio.HOP + audio.WINDOW])
            peak = np.abs(samples[: ready * audio.HOP]).reshape(ready, audio.HOP).max(axis=1)
            self._rows, self._peak = np.concatenate([self._rows, rows]), np.concatenate([self._peak, peak])
        self._pending = [samples[ready * audio.HOP :]]
        self._held = len(self._pending[0])

    def settled(self, time: float) -> bool:
        """Whether the window of a frame at `time` is complete."""
        if self._start is None or self._ended:
            return self._ended
        if time < self._start - audio.EDGE_SECONDS:
            return True
        # At the start of the track, windows are shifted inwards and so reach further ahead.
        return self.end >= max(time - self._shift + _LOOK_AHEAD, self._start + _FIRST_WINDOW)

    def windows(self, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the windows of frames. Times must not decrease, from one call to the next either.

        Args:
          time: float `[T]`, seconds.

        Returns:
          windows float32 `[n, 96, 64]` of the n frames with sound, and mask bool `[T]`.
        """
        time = np.asarray(time, np.float64)
        if self._start is None or not len(time):
            return np.zeros((0, audio.EXAMPLE_ROWS, audio.NUM_BANDS), np.float32), np.zeros(len(time), bool)
        offset = self._dropped / audio.ROWS_PER_SECOND
        kept = audio.Sound(
            self._rows,
            self._peak,
            self._start + offset + self._shift,  # a window that ends at t is a centred one of delayed sound
            self._count / audio.SAMPLE_RATE - offset,
            0.0,
        )
        index, mask = audio.align(time, kept)
        rows, first = audio.window_rows(kept.log_mel, index, mask)
        windows = rows[first[mask][:, None] + np.arange(audio.EXAMPLE_ROWS)[None, :]]
        # Windows only move forward: no later frame needs the rows before this one.
        passed = int(index[-1])
        self._rows, self._peak = self._rows[passed:], self._peak[passed:]
        self._dropped += passed
        return windows, mask


class SoundReader:
    """The same from an iterator of decoded sound, read only as far as the requested frames need it."""

    def __init__(self, blocks: Iterable[tuple[float, np.ndarray]], origin: float | None = 0.0):
        self._blocks: Iterator[tuple[float, np.ndarray]] = iter(blocks)
        self._windows = SoundWindows(origin)
        self.seconds = 0.0

    def windows(self, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the same as `SoundWindows.windows`, after reading all the sound that frames at `time` need."""
        if len(time):
            self._read(lambda: self._windows.settled(float(time[-1])))
        return self._windows.windows(time)

    def lasts(self, seconds: float) -> bool:
        """Whether the track is at least `seconds` long."""
        self._read(lambda: self.seconds >= seconds)
        return self.seconds >= seconds - 1e-6

    def _read(self, enough: Callable[[], bool]) -> None:
        while not enough():
            block = next(self._blocks, None)
            if block is None:
                self._windows.finish()
                return
            start, samples = block
            self.seconds += len(samples) / audio.SAMPLE_RATE
            self._windows.push(samples, start)
