"""Recordings that a user passes in: finding them, reading their tracks, and naming in one line what is wrong."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Collection, Iterator

import av

from media import listing, video
from media.errors import BadItem, UserError
from media.files import media_address

SUFFIXES = (*video.SUFFIXES, *video.SOUND_SUFFIXES)
# A picture track that ends this long before its declared end was cut off.
_MISSING_SECONDS, _MISSING_SHARE = 0.5, 0.05


@dataclasses.dataclass(frozen=True)
class Recording:
    """A file that can be opened.

    Attributes:
      path: the file.
      picture, sound: whether it has such a track (a cover image is not a picture track).
      fps: average frame rate; 0 without a picture.
      duration: seconds declared by the container, or 0.
      declared: seconds declared for the picture track, or 0.
    """

    path: pathlib.Path
    picture: bool
    sound: bool
    fps: float
    duration: float
    declared: float


def probe(path: str | os.PathLike) -> Recording:
    """Opens a file and looks at its tracks.

    Raises:
      UserError: the file does not exist, is empty, or holds neither video nor sound.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(
            f"--input={path} does not exist: name a video, a sound file, a folder of them, or - for a pipe."
        )
    try:
        if not path.stat().st_size:
            raise UserError(f"{path} is empty (0 bytes): copy it again.")
        with av.open(media_address(path), metadata_errors="ignore") as container:
            pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            sounds = list(container.streams.audio)
            if not pictures and not sounds:
                raise UserError(f"{path} has neither a picture nor a sound track: it is not a video.")
            stream = pictures[0] if pictures else None
            if (stream is not None and stream.codec_context is None) or any(s.codec_context is None for s in sounds):
                raise UserError(
                    f"{path} is encrypted or uses a codec that FFmpeg cannot read: convert it to H.264 first."
                )
            duration = float(container.duration or 0) / av.time_base
            if stream is None:
                return Recording(path, False, True, 0.0, duration, 0.0)
            declared = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            rate = stream.average_rate or stream.guessed_rate
            return Recording(path, True, bool(sounds), float(rate or 25), duration, declared)
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


def check_complete(recording: Recording, seconds: float) -> None:
    """Raises a `UserError` if the picture ended at `seconds`, well before its declared length."""
    if recording.declared - seconds > max(_MISSING_SECONDS, _MISSING_SHARE * recording.declared):
        raise UserError(
            f"{recording.path} is cut short: only {seconds:.1f} s of {recording.declared:.1f} s can be decoded. Copy "
            "it again, or save what is left, e.g. with `ffmpeg -i IN OUT.mp4`."
        )


def find(
    folder: pathlib.Path,
    unreadable: Callable[[OSError], None] = lambda error: None,
    skip: Collection[pathlib.Path] = (),
) -> list[pathlib.Path]:
    """Finds video and sound files at any depth, sorted by name; hidden files and what was written here are left out.

    Args:
      folder: where to look.
      skip: folders that are left out, such as the output.
      unreadable: called for every subfolder that cannot be read; the search goes on without it.

    Raises:
      UserError: the folder itself cannot be read, or holds no video or sound.
    """

    def note(error: OSError) -> None:
        if pathlib.Path(error.filename or folder) == folder:
            raise UserError(f"--input={folder} cannot be read: {error.strerror}.") from error
        unreadable(error)

    inside = listing.files(folder, skip=skip, unreadable=note)
    found = sorted(path for path in inside if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise UserError(f"--input={folder} holds no video or sound ({', '.join(SUFFIXES)}).")
    return found
