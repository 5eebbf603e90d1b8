"""Video: decoding with the container's times, upright and with square pixels, one frame in memory at a time."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from media.container import PYAV_VERSION, Note, ReadOptions, check_size, opened
from media.errors import BadItem

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".wmv", ".asf", ".flv", ".f4v"),
    *(".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".m2t", ".mxf", ".ogv", ".dv", ".gif"),
    *(".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".hevc"),
)
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jp2", ".avif", ".heic", ".heif"),
)
SOUND_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".m4a", ".m4b", ".ogg", ".oga", ".aac", ".opus", ".aif", ".aiff", ".aifc", ".wma"),
    *(".amr", ".ac3", ".caf", ".au", ".mka", ".weba", ".mp2", ".w64"),
)
_NO_RECORDINGS = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".md", ".pdf", ".html", ".xml", ".zip", ".npy", ".srt")
# FFmpeg recognises these by marks that other files do not have by chance.
_CONTAINERS = {"mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "wav", "flac", "aiff", "caf"}
_ONE_THREAD: dict[str, Any] = {"threads": 1} if PYAV_VERSION >= 17 else {}  # before, there was only one
_LARGEST_SKEW = 0.1  # of a display matrix's entries from a quarter turn, before it is said that they differ


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame: its time in the container in seconds, and its image uint8 `[H, W, 3]`, RGB, upright, square pixels."""

    time: float
    image: np.ndarray


@dataclasses.dataclass(frozen=True)
class Stream:
    """What the container says about its video track; fps is the average rate, or 25 if the container gives none."""

    fps: float
    has_audio: bool
    start: float


def probe(path: str | pathlib.Path, options: ReadOptions = ReadOptions()) -> Stream:  # noqa: B008 - frozen
    """Reads a container's header.

    Raises:
      BadItem: the file is not a video, or is too large.
    """
    try:
        with opened(path, options) as file:
            stream = file.picture_track()
            start = float((stream.start_time or 0) * stream.time_base) if stream.time_base else 0.0
            return Stream(frame_rate(stream), bool(file.sounds), start)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadItem(f"video cannot be opened: {error}") from error


def has_picture(path: str | pathlib.Path) -> bool:
    """Whether a file has a picture track; a sound file with a cover has none.

    Raises:
      BadItem: the file has no track at all, or FFmpeg cannot read it.
    """
    try:
        with opened(path) as file:
            if not file.pictures and not file.sounds:
                raise BadItem("it has neither a picture nor a sound track")
            return bool(file.pictures)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadItem(f"it cannot be read as video or sound: {error}") from error


def is_recording(path: pathlib.Path) -> bool:
    """Whether a file is video or sound: by its suffix if that is a common one, otherwise by its content."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES or suffix in SOUND_SUFFIXES:
        return True
    if suffix in IMAGE_SUFFIXES or suffix in _NO_RECORDINGS:
        return False
    try:
        with opened(path) as file:
            return bool(_CONTAINERS & file.formats and (file.pictures or file.sounds))
    except (av.FFmpegError, OSError, ValueError):
        return False


def frame_rate(stream: av.VideoStream) -> float:
    """The average rate that the container states, or 25 if it states none."""
    return float(stream.average_rate or stream.guessed_rate or 25.0)


def decode(
    path: str | pathlib.Path,
    *,
    fps: float | None = None,
    threads: int = 0,
    options: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
    note: Note = lambda line: None,
) -> Iterator[Frame]:
    """Yields the frames of the video track in use, in order of time.

    Times come from the container, so variable frame rates and 29.97 fps are kept; stamps that begin again are moved as
    those of the sound are. The rotation, flip and pixel shape that the file states are applied.

    Args:
      path: any container that FFmpeg reads.
      fps: at most this many frames per second (the others are decoded but not converted); None = all.
      threads: decoder threads; 0 = let FFmpeg choose.
      options: how to read the file.
      note: called with what a user should know about the file.

    Raises:
      BadItem: the file cannot be opened or decoded, is too large or cut short, or has no frame.
    """
    due, times = None, None
    try:
        with opened(path, options, note) as file:
            stream = file.picture_track()
            rate = frame_rate(stream)
            stream.thread_type = "AUTO" if threads != 1 else "NONE"
            stream.codec_context.thread_count = threads
            times, image_of = FrameTimes(rate, note), ImageOf(stream, options, note)
            for packet in file.packets():
                for frame in stream.decode(packet) if packet.stream.index == stream.index else ():
                    time = times(frame)
                    if fps is not None:
                        if due is not None and time < due - 0.5 / rate:
                            continue
                        due = (time if due is None else due) + 1 / fps
                        due = max(due, time)
                    yield Frame(time, image_of(frame))
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise BadItem(f"video cannot be decoded: {error}") from error
    if times is None or times.last is None:
        raise BadItem("the video has no frame")


class FrameTimes:
    """Gives the time of each decoded frame, in seconds; times rise.

    A frame without a time stamp follows one frame's time after the one before; one whose stamp does not rise follows
    after half of that.
    """

    def __init__(self, rate: float, note: Note):
        self._rate, self._note = rate, note
        self.last: float | None = None

    def __call__(self, frame: av.VideoFrame) -> float:
        """Returns the frame's time."""
        stamped = frame.pts is not None and frame.time is not None
        if not stamped and self.last is None:
            self._note(
                f"its frames have no times: {self._rate:.4g} frames per second are taken from its header or assumed"
            )
        time = frame.time if stamped else (0.0 if self.last is None else self.last + 1 / self._rate)
        if self.last is not None and time <= self.last:
            time = self.last + 0.5 / self._rate
        self.last = time
        return time


class ImageOf:
    """Converts the decoded frames of a track to images uint8 `[H, W, 3]`: RGB, upright, square pixels."""

    def __init__(self, stream: av.VideoStream, options: ReadOptions, note: Note):
        self._reformatter = VideoReformatter()  # reused: creating one per frame costs more than the conversion
        self._shape = float(stream.sample_aspect_ratio or 1)  # width of a pixel by its height
        self._options, self._note, self._said = options, note, False

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Returns the frame's image.

        Raises:
          BadItem: with square pixels it is too large.
        """
        size: dict[str, int] = {}
        if abs(self._shape - 1) > 1e-3:  # pixels are only added, so no detail is lost
            width, height = frame.width * max(1.0, self._shape), frame.height / min(1.0, self._shape)
            size = {"width": round(width), "height": round(height)}
            check_size(size["width"], size["height"], self._options.max_megapixels)
        image = self._reformatter.reformat(frame, format="rgb24", **size, **_ONE_THREAD).to_ndarray()
        matrix = _display_matrix(frame)
        if matrix is None:
            return image
        (a, b), (c, d) = matrix / max(np.abs(matrix).max(), 1)
        if not self._said and min(abs(a), abs(b)) + min(abs(c), abs(d)) > _LARGEST_SKEW:
            self._said = True
            self._note("its display matrix turns by less than a quarter: the nearest quarter is applied")
        return _shown(image, a, b, c, d)


def _display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    """The part of the display matrix that turns and flips, float `[2, 2]`; None if the frame has no matrix."""
    side_data: Mapping[Any, Any] = frame.side_data
    if "DISPLAYMATRIX" not in side_data:
        return None
    values = np.frombuffer(bytes(side_data["DISPLAYMATRIX"]), np.int32).astype(np.float64)
    return values.reshape(3, 3)[:2, :2]


def _shown(image: np.ndarray, a: float, b: float, c: float, d: float) -> np.ndarray:
    """Moves the pixel at (x, y) to (ax + cy, bx + dy), each rounded to a quarter turn or flip."""
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, across, down = image.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])
