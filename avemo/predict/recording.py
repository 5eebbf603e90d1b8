"""Recordings that a user passes in: finding them, reading their tracks, and naming in one line what is wrong."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import av

from media import listing, video
from media.container import ReadOptions, opened
from media.errors import BadItem, UserError


@dataclasses.dataclass(frozen=True)
class Recording:
    """A file that can be opened.

    Attributes:
      path: the file.
      picture, sound: whether it has such a track (a cover image is not a picture track).
      audible: whether FFmpeg knows the codec of the sound in use.
      fps: average frame rate; 0 without a picture.
      duration: seconds declared by the picture track or the container, or 0.
      reading: how it is read.
    """

    path: pathlib.Path
    picture: bool
    sound: bool
    audible: bool
    fps: float
    duration: float
    reading: ReadOptions = ReadOptions()  # noqa: RUF009 - frozen


def probe(path: str | os.PathLike, reading: ReadOptions = ReadOptions()) -> Recording:  # noqa: B008 - frozen
    """Opens a file and looks at its tracks.

    Raises:
      UserError: the file does not exist, is empty, holds neither video nor sound, or is too large.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(
            f"--input={path} does not exist: name a video, a sound file, a folder of them, or - for a pipe."
        )
    try:
        if not path.stat().st_size:
            raise UserError(f"{path} is empty (0 bytes): copy it again.")
        with opened(path, reading) as file:
            if not file.pictures and not file.sounds:
                raise UserError(f"{path} has neither a picture nor a sound track: it is not a video.")
            rate = video.frame_rate(file.picture_track()) if file.pictures else 0.0
            audible = file.sound is not None and file.sound.codec_context is not None
            return Recording(path, bool(file.pictures), bool(file.sounds), audible, rate, file.duration, reading)
    except BadItem as error:
        raise UserError(f"{path}: {error}.") from error
    except (av.FFmpegError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as video or sound ({error.strerror}): copy it again, or convert it to H.264."
        ) from error


@contextlib.contextmanager
def decoding(recording: Recording) -> Iterator[None]:
    """Turns a decoder's error inside the block into one line about the recording. Other errors pass unchanged."""
    try:
        yield
    except BadItem as error:
        raise UserError(
            f"{recording.path}: {' '.join(str(error).split())}. It is damaged, cut short or encrypted: copy it again, "
            "or convert it, e.g. with `ffmpeg -i IN OUT.mp4`."
        ) from error


def find(
    folder: pathlib.Path,
    unreadable: Callable[[OSError], None] = lambda error: None,
    skip: Collection[pathlib.Path] = (),
    passed_over: Callable[[pathlib.Path], Any] = lambda path: None,
) -> list[pathlib.Path]:
    """Finds video and sound files at any depth, sorted by name; hidden files and what was written here are left out.

    Args:
      folder: where to look.
      skip: folders that are left out, such as the output.
      passed_over: called for every file that is neither video nor sound.
      unreadable: called for every subfolder that cannot be read; the search goes on without it.

    Raises:
      UserError: the folder itself cannot be read, or holds no video or sound.
    """

    def note(error: OSError) -> None:
        if pathlib.Path(error.filename or folder) == folder:
            raise UserError(f"--input={folder} cannot be read: {error.strerror}.") from error
        unreadable(error)

    inside = listing.files(folder, skip=skip, unreadable=note)
    found: list[pathlib.Path] = []
    for path in inside:
        if path.is_file():
            (found.append if video.is_recording(path) else passed_over)(path)
    if not found:
        raise UserError(f"--input={folder} holds no video or sound.")
    found.sort()
    return found
