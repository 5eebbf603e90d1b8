"""What a user hands in: its tracks, or in one line why it cannot be read; and work done ahead in a thread."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import av

from media import video
from media.errors import BadItem, UserError

SUFFIXES = (*video.SUFFIXES, *video.SOUND_SUFFIXES)
# A picture track that ends this much before the length its container declares was cut off.
_MISSING_SECONDS, _MISSING_SHARE = 0.5, 0.05

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Media:
    """A recording that can be opened.

    Attributes:
      path: of the file.
      picture, sound: whether it has such tracks (a cover image is no picture track).
      fps: average frame rate; 0 without a picture.
      duration: s, as the container declares it; 0 where it does not.
      declared: s, of the picture track, where the container declares it; else 0.
    """

    path: pathlib.Path
    picture: bool
    sound: bool
    fps: float
    duration: float
    declared: float


def probe(path: str | os.PathLike) -> Media:
    """Opens a file and looks at its tracks.

    Raises:
      UserError: there is no file, it is empty, or neither video nor sound.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(
            f"--input={path} does not exist: name a video, a sound file, a folder of them, or - for a pipe."
        )
    try:
        if not path.stat().st_size:
            raise UserError(f"{path} is empty (0 bytes): copy it again.")
        with av.open(str(path), metadata_errors="ignore") as container:
            pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            sounds = list(container.streams.audio)
            if not pictures and not sounds:
                raise UserError(f"{path} has neither a picture nor a sound track: it is not a video.")
            stream = pictures[0] if pictures else None
            if (stream is not None and stream.codec_context is None) or any(s.codec_context is None for s in sounds):
                raise UserError(
                    f"{path} is encrypted or in a codec that FFmpeg cannot read: convert it to H.264 first."
                )
            duration = float(container.duration or 0) / av.time_base
            if stream is None:
                return Media(path, False, True, 0.0, duration, 0.0)
            declared = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            rate = stream.average_rate or stream.guessed_rate
            return Media(path, True, bool(sounds), float(rate or 25), duration, declared)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as video or sound ({_reason(error)}): copy it again, or convert it to H.264."
        ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]


@contextlib.contextmanager
def readable(media: Media) -> Iterator[None]:
    """Turns what goes wrong while decoding into one line for the user."""
    try:
        yield
    except BadItem as error:
        raise UserError(
            f"{media.path}: {' '.join(str(error).split())}. It is damaged, cut short or encrypted: copy it again, or "
            "convert it, e.g. with `ffmpeg -i IN OUT.mp4`."
        ) from error


def check_complete(media: Media, seconds: float) -> None:
    """Raises a `UserError` where the picture ended after `seconds`, well before its declared length."""
    if media.declared - seconds > max(_MISSING_SECONDS, _MISSING_SHARE * media.declared):
        raise UserError(
            f"{media.path} is cut short: {seconds:.1f} s of {media.declared:.1f} s can be decoded. Copy it again, or "
            "save what is left, e.g. with `ffmpeg -i IN OUT.mp4`."
        )


def find(folder: pathlib.Path, unreadable: Callable[[OSError], None] = lambda error: None) -> list[pathlib.Path]:
    """Video and sound files at any depth, in order of their names.

    Args:
      folder: where to look; unreadable: is told of every folder below that cannot be read, which is passed over.

    Raises:
      UserError: the folder itself cannot be read, or holds none.
    """

    def note(error: OSError) -> None:
        if pathlib.Path(error.filename or folder) == folder:
            raise UserError(f"--input={folder} cannot be read: {error.strerror}.") from error
        unreadable(error)

    inside = (pathlib.Path(place) / name for place, _, names in os.walk(folder, onerror=note) for name in names)
    found = sorted(path for path in inside if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise UserError(f"--input={folder} holds no video or sound ({', '.join(SUFFIXES)}).")
    return found


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


class ahead(Iterator[T]):
    """Runs an iterator in a thread of its own, at most `size` items ahead; what it raises is raised here.

    Usage: `with ahead(items, 2) as items: for item in items: ...`; leaving the block ends the thread.
    """

    def __init__(self, items: Iterable[T], size: int):
        self._queue: queue.Queue[tuple[bool, Any]] = queue.Queue(size)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), daemon=True)
        self._thread.start()

    def _run(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._put((True, item)):
                    return
            self._put((False, None))
        except BaseException as error:  # handed over to the one who waits for the next item
            self._put((False, error))
        finally:
            if hasattr(items, "close"):
                items.close()

    def _put(self, entry: tuple[bool, Any]) -> bool:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(entry, timeout=0.1)
                return True
        return False

    def __next__(self) -> T:
        more, item = self._queue.get()
        if more:
            return item
        self._queue.put((False, None))
        if item is not None:
            raise item
        raise StopIteration

    def __enter__(self) -> "ahead[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
