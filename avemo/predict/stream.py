"""From a recording to its trace in one pass, at constant memory.

One thread decodes and finds faces, another decodes sound, and the networks run in the main thread. Decoding, cropping
and alignment are those of `data_prep.clips`, so the features equal those seen in training, to rounding.
"""

import contextlib
import dataclasses
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from avemo.predict import face_tracks, prefetch
from avemo.predict.face_tracks import PeopleInFrame
from avemo.predict.models import Models
from avemo.predict.recording import Recording, decoding
from avemo.predict.session import Session
from avemo.predict.sound_windows import SoundReader
from avemo.predict.trace import Collector, Trace
from avemo.runs import installed
from media import audio, video
from media.errors import UserError
from media.faces import FaceOptions
from media.files import shown

logger = logging.getLogger(__name__)
MAX_PERSONS = 8
_BATCH = 32  # frames that go through the networks at once
_FASTER = 1.3  # a video faster than the training videos by this factor is thinned to their rate


@dataclasses.dataclass(frozen=True)
class Options:
    """How to look at a recording.

    face: "largest" (followed once found), "all" (up to `MAX_PERSONS`), or a person's number in the output of "all".
    fps: analyse at most this many frames per second; 0 = all, or the rate of the training videos if that is lower.
    faces: how faces are found and cut out; None = as for the run's training videos.
    """

    face: str = "largest"
    fps: float = 0.0
    faces: FaceOptions | None = None

    def check(self) -> None:
        """Raises a `UserError` for values that cannot work."""
        if self.face not in ("largest", "all") and not self.face.isdecimal():
            raise UserError(f"--face is largest, all, or a number from 0, not {self.face!r}.")
        if self.face.isdecimal() and int(self.face) >= MAX_PERSONS:
            raise UserError(f"--face={self.face}: at most {MAX_PERSONS} faces are followed, 0 to {MAX_PERSONS - 1}.")
        if self.fps < 0:
            raise UserError(f"--fps must not be negative, it is {self.fps}.")


def analyse(
    models: Models,
    recording: Recording,
    options: Options = Options(),
    progress: Callable[[float], None] = lambda seconds: None,
) -> Trace:
    """Runs a recording through a run.

    Args:
      models: the run.
      recording: the recording.
      options: how to look at it.
      progress: called with the seconds done so far.

    Raises:
      UserError: the recording cannot be decoded to its end, has no track that the run uses, or does not show the
        chosen face.
    """
    options.check()
    faces = options.faces or models.faces
    _check_tracks(models, recording)
    looks = recording.picture and models.visual is not None
    if looks:
        faces.check()
    persons = MAX_PERSONS if looks and options.face != "largest" else 1
    most, rate = _frame_rates(models, recording, options)
    session, collector = Session(models, persons), Collector()
    last, width, height = 0.0, 0, 0
    said = Notes(recording.path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(decoding(recording))
        blocks: Iterable[tuple[float, np.ndarray]] = ()
        if recording.sound and (models.audio is not None or not recording.picture):
            decoded = audio.without_gaps(audio.decode(recording.path, recording.reading, said))
            blocks = stack.enter_context(prefetch.Prefetch(decoded, 64))
        batches: Iterable[list[PeopleInFrame]]
        if recording.picture:
            frames = video.decode(recording.path, fps=most, options=recording.reading, note=said)
            first = next(frames)
            height, width = first.image.shape[:2]  # the container gives the size before rotation
            sound = SoundReader(blocks, first.time)
            frames = _from_zero(itertools.chain([first], frames), first.time)
            people = _people(frames, faces if looks else None, persons, models.crop_size)
            batches = stack.enter_context(prefetch.Prefetch(prefetch.batches(people, _BATCH), 2))
        else:
            sound = SoundReader(blocks, None)
            batches = prefetch.batches(_without_picture(sound, rate), _BATCH)
        for batch in batches:
            last = _push(batch, sound, session, collector)
            progress(last)
        collector.outputs(session.finish())
    if not recording.picture and not sound.seconds:
        raise UserError(f"{recording.path}: its sound track is empty (0 samples): record or copy it again.")
    hears = recording.sound and models.audio is not None
    notes = notes_of(models, shown(recording.path.name), rate, looks, hears, said.lines, (width, height))
    keep = None if options.face != "largest" else [0]
    if options.face.isdecimal() and looks:
        keep = [int(options.face)]
    trace = collector.trace(faces.max_gap, models.class_names, notes, keep, models.expert_names)
    if looks and options.face.isdecimal() and not trace.face.any():
        raise UserError(f"{recording.path} shows no face number {options.face}: `--face=all` lists the faces in it.")
    return trace


class Notes:
    """Collects what a user should know about a file that is read, each line once, and logs it."""

    def __init__(self, name: str | os.PathLike):
        self._name, self.lines = name, list[str]()

    def __call__(self, line: str) -> None:
        """Takes one line."""
        if line not in self.lines:
            self.lines.append(line)
            logger.warning("%s: %s.", self._name, line)


def notes_of(
    models: Models,
    name: str,
    fps: float,
    sees: bool,
    hears: bool,
    said: Sequence[str] = (),
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """What `trace.json` says of the input and the run; `size` is the picture's (width, height)."""
    return {
        "input": name,
        "run": {"workdir": installed.shown(models.workdir), "task": models.task},
        "fps": fps,
        **({} if size is None else dict(zip(("width", "height"), size, strict=True))),
        "sees": sees,
        "hears": hears,
        "delay": models.delay,
        **({"notes": list(said)} if said else {}),
    }


def _check_tracks(models: Models, recording: Recording) -> None:
    """Raises a `UserError` if the run of a single encoder finds nothing in the recording that it can read."""
    if models.fusion is None and not (recording.picture if models.visual is not None else recording.sound):
        wanted = "picture" if models.visual is not None else "sound"
        raise UserError(f"{recording.path} has no {wanted} track, and {models.workdir} reads nothing else.")


def _frame_rates(models: Models, recording: Recording, options: Options) -> tuple[float | None, float]:
    """The most frames per second to decode (None = all), and the resulting frame rate of the trace."""
    most = options.fps or (models.fps if recording.fps > _FASTER * models.fps else 0.0)
    rate = min(recording.fps or np.inf, most or np.inf) if recording.picture else most or models.fps
    if rate < models.fps / _FASTER:
        logger.warning(
            "%s has %.1f frames per second, but the run was trained on %.1f: a video at that rate gives better traces.",
            recording.path, rate, models.fps,
        )  # fmt: skip
    return most or None, rate


def _from_zero(frames: Iterable[video.Frame], origin: float) -> Iterator[video.Frame]:
    for frame in frames:
        yield video.Frame(frame.time - origin, frame.image)


def _people(
    frames: Iterable[video.Frame], options: FaceOptions | None, persons: int, crop_size: int | None
) -> Iterator[PeopleInFrame]:
    """The faces of every frame; with `options` None, nobody is looked for."""
    if options is not None:
        return face_tracks.follow(frames, options, persons, crop_size)
    return (_nobody(frame.time) for frame in frames)


def _nobody(time: float) -> PeopleInFrame:
    return [face_tracks.no_face(time)], [None]


def _without_picture(sound: SoundReader, rate: float) -> Iterator[PeopleInFrame]:
    """Frames at regular times for as long as the sound lasts, at least one."""
    for i in itertools.count():
        if i and not sound.lasts((i + 1) / rate):
            return
        yield _nobody(i / rate)


def _push(batch: list[PeopleInFrame], sound: SoundReader, session: Session, collector: Collector) -> float:
    """Runs frames through the networks; returns the time of the last one."""
    time = np.array([faces[0].time for faces, _ in batch])
    windows, heard = sound.windows(time)
    face = np.array([[f.mask for f in faces] for faces, _ in batch]).T
    box = np.array([[f.box for f in faces] for faces, _ in batch], np.float32).transpose(1, 0, 2)
    confidence = np.array([[f.confidence for f in faces] for faces, _ in batch], np.float32).T
    crops = [crop for person in range(len(face)) for _, crops in batch if (crop := crops[person]) is not None]
    collector.frames(time=time, sound=heard, face=face, box=box, confidence=confidence)
    collector.outputs(session.push(crops, face, windows, heard))
    collector.experts(session.experts())
    return float(time[-1])
