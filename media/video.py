"""Video: decoding with the container's times and upright orientation, one frame in memory at a time."""

import dataclasses
import pathlib
from collections.abc import Iterator

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from media.errors import BadItem
from media.files import media_address

SUFFIXES = (".mp4", ".mpg", ".mpeg", ".avi", ".mov", ".mkv", ".flv", ".webm", ".m4v", ".wmv")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".aac", ".opus")


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame: its time in the container in seconds, and its image uint8 `[H, W, 3]`, RGB, upright."""

    time: float
    image: np.ndarray


@dataclasses.dataclass(frozen=True)
class Stream:
    """What the container says about its video track; fps is the average rate, or 25 if the container gives none."""

    fps: float
    has_audio: bool
    start: float


def probe(path: str | pathlib.Path) -> Stream:
    """Reads a container's header.

    Raises:
      BadItem: the file is not a video.
    """
    try:
        with av.open(media_address(path), metadata_errors="ignore") as container:
            if not container.streams.video:
                raise BadItem("the file has no video track")
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            start = float((stream.start_time or 0) * stream.time_base) if stream.time_base else 0.0
            return Stream(float(rate) if rate else 25.0, bool(container.streams.audio), start)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadItem(f"video cannot be opened: {error}") from error


def decode(path: str | pathlib.Path, *, fps: float | None = None, threads: int = 0) -> Iterator[Frame]:
    """Yields the frames of the first video track in order of time.

    Times come from the container, so variable frame rates and 29.97 fps are kept. A frame without a time stamp follows
    one frame's time after the previous frame; one whose stamp does not rise follows after half of that. The rotation
    that phones record is applied.

    Args:
      path: any container that FFmpeg reads.
      fps: at most this many frames per second (the others are decoded but not converted); None = all.
      threads: decoder threads; 0 = let FFmpeg choose.

    Raises:
      BadItem: the file cannot be opened or decoded, or has no frame.
    """
    rate = probe(path).fps
    last, due = None, None
    try:
        with av.open(media_address(path), metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO" if threads != 1 else "NONE"
            stream.codec_context.thread_count = threads
            reformatter = VideoReformatter()  # reused: creating one per frame costs more than the conversion
            for frame in container.decode(stream):
                time = frame.time if frame.time is not None else (0.0 if last is None else last + 1 / rate)
                if last is not None and time <= last:
                    time = last + 0.5 / rate
                last = time
                if fps is not None:
                    if due is not None and time < due - 0.5 / rate:
                        continue
                    due = (time if due is None else due) + 1 / fps
                    due = max(due, time)
                yield Frame(time, upright(frame, reformatter))
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise BadItem(f"video cannot be decoded: {error}") from error
    if last is None:
        raise BadItem("the video has no frame")


def upright(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """Converts a decoded frame to an image uint8 `[H, W, 3]`, RGB, rotated by its display matrix."""
    image = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    turns = round(frame.rotation / 90) % 4  # counter-clockwise degrees, as the display matrix gives them
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
