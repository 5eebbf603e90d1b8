"""Opening files of picture and sound: which tracks are used, their packets on one clock, and whether all is there."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import av

from media.clock import Clock
from media.errors import BadItem, UserError
from media.files import media_address

Note = Callable[[str], Any]  # takes one line about a file that is read but not as a user may expect

MAX_MEGAPIXELS = 50.0
PYAV_VERSION = int(av.__version__.split(".")[0])
# PyAV before 19 refuses a file for a tag that is not UTF-8, unless told otherwise; PyAV 19 has no such argument.
_LENIENT: dict[str, Any] = {"metadata_errors": "ignore"} if PYAV_VERSION < 19 else {}
# Formats whose header states a duration. Others are measured by what is there, or guessed from the bit rate.
_DECLARING = {"matroska", "mov", "flv", "avi", "asf"}
# A track that ends this long before its declared end was cut off.
_MISSING_SECONDS, _MISSING_SHARE = 0.5, 0.05


@dataclasses.dataclass(frozen=True)
class SizeLimit:
    """max_megapixels: larger pictures and videos are refused before they are decoded."""

    max_megapixels: float = MAX_MEGAPIXELS

    def check_reading(self) -> None:
        """Raises a `UserError` for values that cannot work."""
        if not self.max_megapixels > 0:
            raise UserError(f"--max_megapixels must be above 0, not {self.max_megapixels}.")


@dataclasses.dataclass(frozen=True)
class ReadOptions(SizeLimit):
    """How files are read: `SizeLimit`, and audio_track: the sound track, from 0; -1 = the file's default one."""

    audio_track: int = -1

    def check_reading(self) -> None:
        """Raises a `UserError` for values that cannot work."""
        super().check_reading()
        if self.audio_track < -1:
            raise UserError(f"--audio_track counts from 0 (-1 = the default track); it is {self.audio_track}.")


def check_size(width: int, height: int, max_megapixels: float) -> None:
    """Raises a `BadItem` for a picture of more than `max_megapixels`."""
    if width * height > max_megapixels * 1e6:
        raise BadItem(
            f"its picture has {width}x{height} pixels, more than {max_megapixels:g} megapixels "
            "(--max_megapixels=N allows larger ones)"
        )


class Container:
    """An open file or pipe.

    Attributes:
      formats: the names of its format.
      pictures, sounds: its tracks of either kind, without cover images.
      clock: of all tracks in use.
    """

    def __init__(self, opened: av.container.InputContainer, options: ReadOptions, note: Note):
        self._opened, self._options, self._note = opened, options, note
        self.formats = frozenset(opened.format.name.split(","))
        cover = av.stream.Disposition.attached_pic
        self.pictures = [track for track in opened.streams.video if not track.disposition & cover]
        self.sounds = list(opened.streams.audio)
        self.clock = Clock()
        number = options.audio_track
        if self.sounds and number >= len(self.sounds):
            raise BadItem(
                f"it has {len(self.sounds)} sound tracks, counted from 0: --audio_track={number} is not there"
            )

    @property
    def picture(self) -> av.VideoStream | None:
        """The picture track in use: the default one of those that can be decoded, or None without any track."""
        return _chosen(self.pictures)

    @property
    def sound(self) -> av.AudioStream | None:
        """The sound track in use: the option's, otherwise the default one of those that can be decoded."""
        return self.sounds[self._options.audio_track] if self._options.audio_track >= 0 else _chosen(self.sounds)

    def picture_track(self) -> av.VideoStream:
        """Returns the picture track, ready to be decoded.

        Raises:
          BadItem: there is none, FFmpeg does not know its codec, or it is too large.
        """
        track = self.picture
        if track is None:
            raise BadItem("the file has no video track")
        if track.codec_context is None:
            raise BadItem("its picture is encrypted or uses a codec that FFmpeg cannot read: convert it first")
        most = self._options.max_megapixels
        check_size(track.codec_context.width, track.codec_context.height, most)
        track.codec_context.options = {"max_pixels": str(int(most * 1e6))}  # the size may change on the way
        return track

    def sound_track(self) -> av.AudioStream | None:
        """Returns the sound track, or None without any; notes it if there are several.

        Raises:
          BadItem: FFmpeg does not know its codec.
        """
        track = self.sound
        if track is not None and track.codec_context is None:
            raise BadItem("its sound is encrypted or uses a codec that FFmpeg cannot read: convert it first")
        if track is not None and len(self.sounds) > 1 and self._options.audio_track < 0:
            number = self.sounds.index(track)
            self._note(f"of {len(self.sounds)} sound tracks, number {number} is heard (--audio_track=N chooses)")
        return track

    def packets(self) -> Iterator[av.Packet]:
        """Yields the packets of both tracks in use, in the order of the file and on one clock.

        Raises:
          BadItem: the clocks of the tracks part, or the file ends well before its declared end.
        """
        used = [track for track in (self.picture, self.sound) if track is not None and track.codec_context is not None]
        told = 0
        for packet in self._opened.demux(used):
            self.clock(packet)
            yield packet
            for seconds in self.clock.jumps[told:]:
                self._note(f"its clock jumps at {seconds:.1f} s; picture and sound after it were moved alike")
                told += 1
        if not self.clock.jumps:
            self._check_complete(used)

    def _check_complete(self, used: Sequence[Any]) -> None:
        """Raises a `BadItem` if a track ends well before its declared end, or all end before that of the file."""
        ends, starts = self.clock.end, self.clock.start
        declaring = bool(_DECLARING & self.formats)
        pictures = [track for track in used if track.type == "video"]
        for track in pictures or used:
            if track.index in ends and (declaring or pictures):
                begin = starts[track.index] if track.duration else 0.0  # Matroska's tag counts from 0
                _check_end(ends[track.index] - begin, _declared(track))
        if declaring and ends and self._opened.duration:
            _check_end(max(ends.values()), self._opened.duration / av.time_base)

    @property
    def duration(self) -> float:
        """Seconds that the file or its picture track declares; 0 if it does not say."""
        of_picture = _declared(self.picture) if self.picture is not None else 0.0
        return of_picture or float(self._opened.duration or 0) / av.time_base


def _chosen(tracks: Sequence[Any]) -> Any:
    """The default one of the tracks that can be decoded; of those that cannot if there is no other; None of none."""
    readable = [track for track in tracks if track.codec_context is not None] or list(tracks)
    default = [track for track in readable if track.disposition & av.stream.Disposition.default]
    return next(iter(default or readable), None)


def _declared(track: Any) -> float:
    """Seconds that a track declares, in its header or in the tag of Matroska; 0 if it does not say."""
    if track.duration and track.time_base:
        return float(track.duration * track.time_base)
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", track.metadata.get("DURATION", ""))
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else 0.0


def _check_end(seconds: float, declared: float) -> None:
    if declared - seconds > max(_MISSING_SECONDS, _MISSING_SHARE * declared):
        raise BadItem(f"cut short: only {seconds:.1f} s of {declared:.1f} s are there")


@contextlib.contextmanager
def opened(
    source: str | os.PathLike | BinaryIO, options: ReadOptions = ReadOptions(), note: Note = lambda line: None
) -> Iterator[Container]:
    """Opens a file, or a stream of bytes such as a pipe.

    Raises:
      av.FFmpegError, OSError: FFmpeg cannot read it.
      BadItem: it lacks the sound track that the options name.
    """
    address: Any = media_address(source) if isinstance(source, str | os.PathLike) else source
    with av.open(address, "r", **_LENIENT) as file:
        yield Container(file, options, note)
