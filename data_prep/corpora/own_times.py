"""The unit of the times in `labels.csv`: stated by its header or an option, or found from the recordings' lengths."""

import pathlib
from collections.abc import Mapping, Sequence

import av
import numpy as np

from data_prep.coverage import TOLERANCE_SECONDS, TOLERANCE_SHARE, frame_times
from data_prep.tables import SECONDS
from media.container import opened
from media.errors import BadItem

Lines = Sequence[tuple[float, float, float]]
_LOOKED_AT = 8  # recordings, spread over the table
_LEAST = 0.4  # share of a recording that an annotation must cover for its unit to be unmistakable


def find(traces: Mapping[str, Mapping[str, Lines]], paths: Mapping[str, str]) -> tuple[str, str]:
    """Finds the unit in which every annotation fits its recording.

    Args:
      traces: each rater's lines by recording.
      paths: the recordings' files.

    Returns:
      "s", or "ms" or "frames" if whole numbers fit as these and not as seconds; and a note if it is not "s".
    """
    names = sorted(name for name, by_rater in traces.items() if by_rater and name in paths)
    chosen = [names[i * len(names) // _LOOKED_AT] for i in range(_LOOKED_AT)] if len(names) > _LOOKED_AT else names
    measured = []
    for name in chosen:
        seconds, fps = _length(paths[name])
        if seconds:
            measured.append((np.array([line[0] for lines in traces[name].values() for line in lines]), seconds, fps))
    if not measured or any(_ends_inside(time.max(), seconds) for time, seconds, _ in measured):
        return "s", ""
    whole = all(np.array_equal(time, np.round(time)) for time, _, _ in measured)
    fitting = [
        unit
        for unit, factors in (("ms", [1000.0 for _ in measured]), ("frames", [fps for *_, fps in measured]))
        if whole
        and all(
            factor and _ends_inside(time.max() / factor, seconds) and time.max() / factor >= _LEAST * seconds
            for (time, seconds, _), factor in zip(measured, factors, strict=True)
        )
    ]
    if len(fitting) != 1:
        return "s", ""
    last, seconds = float(measured[0][0].max()), measured[0][1]
    called = {"ms": "milliseconds", "frames": "frame numbers"}[fitting[0]]
    return fitting[0], f"times are read as {called}: {last:g} s would lie far beyond {chosen[0]} of {seconds:.3g} s"


def first_frame(traces: Mapping[str, Mapping[str, Lines]]) -> int:
    """Whether frame numbers count from 1, which they do if every rater's first is 1, or from 0."""
    firsts = {lines[0][0] for by_rater in traces.values() for lines in by_rater.values() if lines}
    return 1 if firsts == {1.0} else 0


def in_seconds(time: np.ndarray, unit: str, path: pathlib.Path, first: int) -> np.ndarray:
    """Converts times float `[N]` to seconds from the recording's start.

    Args:
      time: in the table's unit.
      unit: "s", "ms", "min" or "frames".
      path: the recording, whose frames are looked up.
      first: number of the first frame.

    Raises:
      BadItem: frame numbers of a file without pictures.
    """
    if unit != "frames":
        return time * SECONDS[unit]
    frames = frame_times(path)
    if len(frames) < 2:
        raise BadItem("its annotation is given by frame numbers, but it has no pictures")
    number, step = time - first, float(np.median(np.diff(frames)))
    beyond = np.maximum(number - (len(frames) - 1), 0) + np.minimum(number, 0)
    return np.interp(number, np.arange(len(frames)), frames) + beyond * step


def _ends_inside(last: float, seconds: float) -> bool:
    return last <= seconds + max(TOLERANCE_SECONDS, TOLERANCE_SHARE * seconds)


def _length(path: str) -> tuple[float, float]:
    """Seconds and frames per second as the header declares them, 0 if it does not."""
    try:
        with opened(path) as file:
            return file.duration, float(file.picture.average_rate or 0) if file.picture else 0.0
    except (av.FFmpegError, OSError, ValueError):
        return 0.0, 0.0
