"""Sound: decoding to 16 kHz mono, VGGish's log-mel, and which log-mel rows belong to which video frame.

The log-mel follows VGGish's public definition (AudioSet, `mel_features.py`) and not librosa's: bands are triangles
linear *in mel* on the HTK scale, and the transform is neither centred nor padded.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator

import av
import librosa
import numpy as np

from media import caches
from media.container import Note, ReadOptions, opened
from media.downmix import Mono
from media.errors import BadItem

caches.make_writable()  # librosa cannot be used without

SAMPLE_RATE = 16000
WINDOW, HOP, FFT = 400, 160, 512
NUM_BANDS, LOWEST_HZ, HIGHEST_HZ, LOG_OFFSET = 64, 125.0, 7500.0, 0.01
ROWS_PER_SECOND = SAMPLE_RATE // HOP
EXAMPLE_ROWS = 96  # one window of the network, 0.96 s

# A window is silent if its loudest sample stays below -70 dBFS, quieter than any recorded room.
SILENCE_PEAK = 10 ** (-70 / 20)
CLIPPING_PEAK = 0.999
# Containers cut sound and video at different frame borders: a video frame this far outside the track still has sound.
EDGE_SECONDS = 0.1
# Longer gaps between time stamps are filled with silence, so that later sound keeps its time.
GAP_SECONDS = 0.05
LONGEST_GAP_SECONDS = 3600.0

_BLOCK_ROWS = 30 * ROWS_PER_SECOND


def mel_matrix() -> np.ndarray:
    """Weights float64 `[257, 64]` from magnitude bins to VGGish's mel bands (HTK scale; DC bin zero)."""

    def mel(hertz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)

    bins = mel(np.linspace(0.0, SAMPLE_RATE / 2, FFT // 2 + 1))[:, None]
    edges = np.linspace(mel(LOWEST_HZ), mel(HIGHEST_HZ), NUM_BANDS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(0.0, np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)))
    weights[0] = 0.0
    return weights


_MEL = mel_matrix().astype(np.float32)


def num_rows(num_samples: int) -> int:
    """Number of log-mel rows of `num_samples` samples: the windows that fit without padding."""
    return max(0, 1 + (num_samples - WINDOW) // HOP)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """VGGish log-mel spectrogram.

    Args:
      samples: float `[N]`, mono, 16 kHz, in [-1, 1].

    Returns:
      float32 `[M, 64]`: M = 1 + (N - 400) // 160 rows of 25 ms every 10 ms, or none for fewer than 400 samples.
    """
    samples = np.asarray(samples, np.float32)
    if len(samples) < WINDOW:
        return np.zeros((0, NUM_BANDS), np.float32)
    # librosa centres the 400-sample window in its 512-sample frame; this padding puts window i at sample 160·i.
    padded = np.pad(samples, (FFT - WINDOW) // 2)
    spectrum = librosa.stft(padded, n_fft=FFT, hop_length=HOP, win_length=WINDOW, window="hann", center=False)
    return np.log(np.abs(spectrum).T @ _MEL + np.float32(LOG_OFFSET)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Sound:
    """The sound of a recording.

    Attributes:
      log_mel: float32 `[M, 64]`.
      peak: float32 `[M]`, largest |sample| of each row's hop.
      start: time of the first sample in the container, seconds.
      duration: seconds.
      clipped: share of samples at full scale.
    """

    log_mel: np.ndarray
    peak: np.ndarray
    start: float
    duration: float
    clipped: float

    def shifted(self, seconds: float) -> "Sound":
        """Returns the same sound starting `seconds` later."""
        return dataclasses.replace(self, start=self.start + seconds)

    @property
    def silent(self) -> bool:
        """Whether the whole track is silent."""
        return not self.peak.size or float(self.peak.max()) < SILENCE_PEAK


NO_SOUND = Sound(np.zeros((0, NUM_BANDS), np.float32), np.zeros(0, np.float32), 0.0, 0.0, 0.0)


def decode(
    path: str | pathlib.Path,
    options: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
    note: Note = lambda line: None,
    rate: int = SAMPLE_RATE,
) -> Iterator[tuple[float | None, np.ndarray]]:
    """Yields (seconds, samples float32 `[n]`) of the sound track in use, mono; nothing if there is no track.

    The seconds are those of the block's first sample, None if the block follows directly on the one before.

    Args:
      path: any container that FFmpeg reads.
      options: how to read the file.
      note: called with what a user should know about the file.
      rate: samples per second.

    Raises:
      BadItem: the file cannot be opened, its sound cannot be decoded, or it is cut short.
    """
    try:
        with opened(path, options, note) as file:
            track = file.sound_track()
            if track is None:
                return
            mono = Mono(rate)
            for packet in file.packets():
                for frame in track.decode(packet) if packet.stream.index == track.index else ():
                    yield from mono(frame)
            yield from mono(None)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadItem(f"sound cannot be decoded: {error}") from error


class Gapless:
    """Places decoded blocks by their time, so that later sound keeps its time.

    A gap is filled with silence; what begins before the sound so far has ended is cut off at its beginning.

    Attributes:
      start: time of the track's first sample in seconds, None before it.
    """

    def __init__(self, rate: int = SAMPLE_RATE):
        self._rate, self._count, self._overlap = rate, 0, 0
        self.start: float | None = None

    def __call__(self, seconds: float | None, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the samples to append for a block that begins at `seconds`, or directly after the one before."""
        if self.start is None:
            self.start = seconds or 0.0
        gap = 0.0 if seconds is None else seconds - self.start - self._count / self._rate
        if seconds is not None:
            self._overlap = round(-gap * self._rate) if gap < -GAP_SECONDS else 0
        missing = round(gap * self._rate) if GAP_SECONDS < gap < LONGEST_GAP_SECONDS else 0
        self._count += missing
        while missing:
            yield np.zeros(min(missing, 30 * self._rate), np.float32)
            missing -= min(missing, 30 * self._rate)
        kept = samples[self._overlap :]
        self._overlap -= len(samples) - len(kept)
        self._count += len(kept)
        yield kept


def without_gaps(
    blocks: Iterable[tuple[float | None, np.ndarray]], rate: int = SAMPLE_RATE
) -> Iterator[tuple[float, np.ndarray]]:
    """Fills gaps between decoded blocks with silence, as `Gapless` does.

    Args:
      blocks: (seconds or None, samples `[n]`), as `decode` yields them.
      rate: samples per second.

    Yields:
      (seconds of the track's first sample, samples `[n]`); the seconds are the same for every block.
    """
    place = Gapless(rate)
    for seconds, samples in blocks:
        for part in place(seconds, samples):
            yield place.start or 0.0, part


def analyse(blocks: Iterable[tuple[float, np.ndarray]]) -> Sound:
    """Computes the log-mel of a stream of samples block by block, holding 25 KB per second instead of the samples.

    Args:
      blocks: (seconds of the track's first sample, samples `[n]`), as `without_gaps` yields them.
    """
    pending: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    peaks: list[np.ndarray] = []
    start, count, clipped, held = 0.0, 0, 0, 0

    def flush() -> None:
        nonlocal pending, held
        samples = np.concatenate(pending) if pending else np.zeros(0, np.float32)
        ready = num_rows(len(samples))
        if ready:
            rows.append(log_mel(samples[: (ready - 1) * HOP + WINDOW]))
            hops = np.abs(samples[: ready * HOP]).reshape(ready, HOP)
            peaks.append(hops.max(axis=1))
        pending = [samples[ready * HOP :]]
        held = len(pending[0])

    for index, (first, samples) in enumerate(blocks):
        if index == 0:
            start = first
        pending.append(np.nan_to_num(samples))
        held += len(samples)
        count += len(samples)
        clipped += int(np.count_nonzero(np.abs(samples) >= CLIPPING_PEAK))
        if held >= _BLOCK_ROWS * HOP:
            flush()
    flush()
    if not rows:
        return dataclasses.replace(NO_SOUND, start=start, duration=count / SAMPLE_RATE)
    return Sound(np.concatenate(rows), np.concatenate(peaks), start, count / SAMPLE_RATE, clipped / max(count, 1))


def load(
    path: str | pathlib.Path,
    options: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
    note: Note = lambda line: None,
) -> Sound:
    """Decodes the sound track in use of a file; returns `NO_SOUND` if it has no track.

    Raises:
      BadItem: the file cannot be opened, or its sound cannot be decoded.
    """
    return analyse(without_gaps(decode(path, options, note)))


def align(time: np.ndarray, sound: Sound) -> tuple[np.ndarray, np.ndarray]:
    """Finds each video frame's window of log-mel rows; this alone defines how video and sound are aligned.

    The window of a frame at t seconds is the 96 rows centred in [t - 0.48, t + 0.48), moved inwards at the ends of the
    track. Row r is centred at start + (160·r + 200) / 16000 seconds.

    Args:
      time: float `[T]`, the frames' times in seconds, on the clock of `sound.start`.
      sound: the sound track.

    Returns:
      index: int32 `[T]`, first row of the window in `sound.log_mel` (`window_rows` pads a track shorter than 96).
      mask: bool `[T]`, False before the track starts, after it ends, and if the window is silent.
    """
    time = np.asarray(time, np.float64)
    total = len(sound.log_mel)
    if not total:
        return np.zeros(len(time), np.int32), np.zeros(len(time), bool)
    centre_of_first = sound.start + WINDOW / 2 / SAMPLE_RATE
    # 1e-6 rows of slack, because t = 0.48 + k/100 lies exactly on a border and floats cannot represent it.
    first = np.ceil((time - EXAMPLE_ROWS / 2 / ROWS_PER_SECOND - centre_of_first) * ROWS_PER_SECOND - 1e-6)
    index = np.clip(first, 0, max(0, total - EXAMPLE_ROWS)).astype(np.int32)
    inside = (time >= sound.start - EDGE_SECONDS) & (time <= sound.start + sound.duration + EDGE_SECONDS)
    heard = np.concatenate([[0], np.cumsum(sound.peak >= SILENCE_PEAK)])
    audible = heard[np.minimum(index + EXAMPLE_ROWS, total)] > heard[index]
    return index, inside & audible


def window_rows(rows: np.ndarray, index: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts out the log-mel rows that some frames need.

    Args:
      rows: float32 `[M, 64]`, the log-mel of the whole track.
      index: int32 `[T]` and mask: bool `[T]` of these frames, from `align`.

    Returns:
      rows float32 `[m, 64]`, m >= 96, padded with silence (ln 0.01) if the track is too short; and index int32 `[T]`
      into them, 0 for masked frames.
    """
    used = index[mask]
    first = int(used.min()) if used.size else 0
    last = int(used.max()) + EXAMPLE_ROWS if used.size else 0
    cut = rows[first:last]
    if len(cut) < max(EXAMPLE_ROWS, last - first):
        missing = max(EXAMPLE_ROWS, last - first) - len(cut)
        silence = np.full((missing, NUM_BANDS), np.log(np.float32(LOG_OFFSET)), np.float32)
        cut = np.concatenate([cut, silence])
    return np.asarray(cut, np.float32), np.where(mask, index - first, 0).astype(np.int32)
