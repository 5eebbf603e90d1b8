"""Whether an annotation belongs to its recording: its times against the recording's, its rows against the frames.

A difference within the tolerance is counted on the card. Beyond it the recording is refused, because an annotation in
another unit, of another recording or of another frame rate would be learned at the wrong moments.
"""

import dataclasses
import pathlib
from collections.abc import Iterable

import av
import numpy as np

from data_prep import annotations
from media import video
from media.container import opened
from media.errors import BadItem

# How far an annotation may reach beyond its recording: raters stop their tool late.
TOLERANCE_SECONDS, TOLERANCE_SHARE = 1.0, 0.05
# How many rows more or fewer than frames: decoders differ in the first and last frames.
TOLERANCE_FRAMES, TOLERANCE_FRAMES_SHARE = 5, 0.02


@dataclasses.dataclass(frozen=True)
class Span:
    """The times of an annotation: the first and the last, its step in seconds, the number of rows and of holes."""

    first: float
    last: float
    step: float
    rows: int
    holes: int

    @classmethod
    def of(cls, time: np.ndarray, step: float | None = None) -> "Span":
        """The span of rising times float `[N]`, N >= 1, with a step in seconds, by default `step_of`."""
        step = annotations.step_of(time) if step is None else step
        return cls(float(time[0]), float(time[-1]), step, len(time), annotations.holes(time, step))


def check(spans: Iterable[Span], end: float, least: float) -> list[str]:
    """Compares annotations with their recording from time 0 to `end` seconds.

    Args:
      spans: the annotations' times.
      end: of the recording.
      least: share of the recording that must be annotated.

    Returns:
      What the card counts, in a few words each.

    Raises:
      BadItem: the annotation reaches beyond the recording, or covers too little of it.
    """
    return sorted({flag for span in spans for flag in _check(span, end, least)})


def _check(span: Span, end: float, least: float) -> list[str]:
    tolerance = max(TOLERANCE_SECONDS, TOLERANCE_SHARE * end, 2 * span.step)
    times = (
        f"its annotation runs from {span.first:g} to {span.last:g} s in {span.rows} rows, the recording to {end:.6g} s"
    )
    if span.last > end + tolerance or span.first < -tolerance:
        raise BadItem(f"{times}: give times in seconds from the recording's start, or name their unit")
    begins, ends = max(span.first - span.step, 0.0), min(span.last + span.step, end)
    if ends - begins < least * end - 1e-6:
        raise BadItem(
            f"{times}, less than {least:.0%} of it: is the unit of the times seconds? --min_coverage=0 accepts any part"
        )
    found = ["annotation begins late"] if begins > tolerance else []
    # A shorter end than the tolerance is worth a word too: labels are missing where frames are.
    found += ["annotation ends early"] if end - ends > max(2 * span.step, TOLERANCE_SHARE * end) else []
    return found + (["annotation has a hole"] if span.holes else [])


def check_rows(rows: int, frames: int, what: str) -> list[str]:
    """Compares the rows of an annotation with one row per frame; returns what the card counts.

    Raises:
      BadItem: they differ by more than the tolerance.
    """
    if abs(rows - frames) > max(TOLERANCE_FRAMES, TOLERANCE_FRAMES_SHARE * min(rows, frames)):
        raise BadItem(
            f"its annotation has {rows} rows for {frames} {what}: it belongs to another recording or frame rate"
        )
    return ["annotation has more or fewer rows than frames"] if rows != frames else []


def frame_times(path: pathlib.Path) -> np.ndarray:
    """Times of a video's frames from the first on, float64 `[T]`, read without decoding.

    Raises:
      BadItem: the file cannot be read.
    """
    try:
        with opened(path) as file:
            stream = file.picture_track()
            stamps = [packet.pts for packet in file.packets() if packet.size and packet.stream.index == stream.index]
            base, rate = float(stream.time_base or 0), video.frame_rate(stream)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadItem(f"video cannot be opened: {error}") from error
    if not stamps or None in stamps or not base:
        return np.arange(len(stamps)) / rate
    time = np.sort(np.array(stamps, np.float64)) * base
    return time - time[0]
