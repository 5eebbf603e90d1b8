"""A recording to its trace in one pass: decoding and detection in one thread, the networks in another, memory flat.

What is decoded, found, cut out and aligned is what `data_prep.clips` would have stored, so a prediction equals the
features that training saw, to rounding.
"""

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from avemo.data.shards import Images
from avemo.predict import media as sources
from avemo.predict.ensemble import Ensemble, EnsembleSession
from avemo.predict.people import People
from avemo.predict.session import Models, Session
from avemo.predict.sound import SoundReader
from avemo.predict.trace import Collector, Trace
from media import audio, video
from media.augment import resize
from media.errors import UserError
from media.faces import FaceFrame, FaceOptions, Follower

logger = logging.getLogger(__name__)
MAX_PERSONS = 8
_BATCH = 32  # frames that go through the networks at once
_FASTER = 1.3  # a video that much faster than what was trained on is thinned to the training rate


@dataclasses.dataclass(frozen=True)
class Options:
    """How a recording is looked at.

    face: "largest" (followed once found), "all" (up to `MAX_PERSONS`), or a person's number as "all" gives it.
    fps: frames a second that are analysed; 0 = all, or the rate of the training videos where those had fewer.
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


# One frame: every person's `FaceFrame`, and their crops uint8 [S, S, 3] (None where there is no face).
Row = tuple[list[FaceFrame], list[np.ndarray | None]]


def analyse(
    models: Models | Ensemble,
    media: sources.Media,
    options: Options = Options(),
    progress: Callable[[float], None] = lambda seconds: None,
) -> Trace:
    """Runs a recording through a run.

    Args:
      models: the run; media: the recording; options: how to look at it.
      progress: called with the seconds done so far.

    Raises:
      UserError: the recording cannot be decoded to its end, has nothing that the run looks at, or lacks the face asked
        for.
    """
    options.check()
    faces = options.faces or models.faces
    if models.head is None and not (media.picture if models.visual is not None else media.sound):
        wanted = "picture" if models.visual is not None else "sound"
        raise UserError(f"{media.path} has no {wanted} track, and {models.workdir} looks at nothing else.")
    looks = media.picture and models.visual is not None
    if looks:
        faces.check()
    persons = MAX_PERSONS if looks and options.face != "largest" else 1
    fps = options.fps or (models.fps if media.fps > _FASTER * models.fps else 0.0)
    rate = min(media.fps or np.inf, fps or np.inf) if media.picture else fps or models.fps
    if rate < models.fps / _FASTER:
        logger.warning(
            "%s has %.1f frames a second, the run was trained on %.1f: expect more from a video of that rate.",
            media.path, rate, models.fps,
        )  # fmt: skip
    session, collector = models.session(persons), Collector()
    last, width, height = 0.0, 0, 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(sources.readable(media))
        parts: Iterable = ()
        if media.sound and (models.audio is not None or not media.picture):
            parts = stack.enter_context(sources.ahead(audio._without_gaps(audio.decode(media.path)), 64))
        if media.picture:
            frames = video.decode(media.path, fps=fps or None)
            first = next(frames)
            height, width = first.image.shape[:2]  # upright; the container's own are those before any rotation
            sound = SoundReader(parts, first.time)
            rows = _faces(itertools.chain([first], frames), models, faces if looks else None, persons)
            batches = stack.enter_context(sources.ahead(sources.batches(rows, _BATCH), 2))
        else:
            sound = SoundReader(parts, None)
            batches = sources.batches(_without_picture(sound, rate), _BATCH)
        for batch in batches:
            last = _push(batch, sound, session, collector, models, persons)
            progress(last)
        collector.outputs(session.finish())
    if media.picture:
        sources.check_complete(media, last + 1 / rate)
    elif not sound.seconds:
        raise UserError(f"{media.path}: its sound track is empty (0 samples): record or copy it again.")
    notes = {
        "input": media.path.name,
        "run": {"workdir": models.workdir, "task": models.task},
        "fps": rate,
        "width": width,
        "height": height,
        "sees": looks,
        "hears": bool(media.sound and models.audio is not None),
        "delay": models.delay,
    }
    keep = None if options.face != "largest" else [0]
    if options.face.isdecimal() and looks:
        keep = [int(options.face)]
    trace = collector.trace(faces.max_gap, models.class_names, notes, keep)
    if looks and options.face.isdecimal() and not trace.face.any():
        raise UserError(f"{media.path} shows no face number {options.face}: `--face=all` lists those there are.")
    return trace


def _faces(
    frames: Iterator[video.Frame], models: Models | Ensemble, options: FaceOptions | None, persons: int
) -> Iterator[Row]:
    """Finds, follows and cuts out; time 0 is the first frame. No options: nobody is looked for."""
    origin: list[float] = []

    def shifted() -> Iterator[video.Frame]:
        for frame in frames:
            origin[:] = origin or [frame.time]
            yield video.Frame(frame.time - origin[0], frame.image)

    if options is None:
        yield from (_nobody(frame.time) for frame in shifted())
        return
    rows = ([face] for face in Follower(options)(shifted())) if persons == 1 else People(options, persons)(shifted())
    for row in rows:
        yield row, [crop_of(face, models.crop_size) for face in row]


def crop_of(face: FaceFrame, size: int | None) -> np.ndarray | None:
    """The face as the encoder sees it, uint8 `[size, size, 3]`: through the JPEG that a record would hold."""
    if not face.mask:
        return None
    image = Images([face.jpeg], "face").decode(0)
    return image if size is None else resize(image, size)


def _nobody(time: float) -> Row:
    return [FaceFrame(time, b"", False, (0.0, 0.0, 0.0, 0.0), 0.0)], [None]


def _without_picture(sound: SoundReader, rate: float) -> Iterator[Row]:
    """Frames at regular times for as long as there is sound, at least one."""
    for i in itertools.count():
        if i and not sound.lasts((i + 1) / rate):
            return
        yield _nobody(i / rate)


def _push(
    batch: list[Row],
    sound: SoundReader,
    session: Session | EnsembleSession,
    collector: Collector,
    models: Models | Ensemble,
    persons: int,
) -> float:
    """Runs frames through the networks; returns the time of the last."""
    time = np.array([row[0].time for row, _ in batch])
    windows, heard = sound.windows(time)
    face = np.array([[f.mask for f in row] for row, _ in batch]).T
    box = np.array([[f.box for f in row] for row, _ in batch], np.float32).transpose(1, 0, 2)
    confidence = np.array([[f.confidence for f in row] for row, _ in batch], np.float32).T
    crops = [image for person in range(persons) for _, images in batch if (image := images[person]) is not None]
    collector.frames(time=time, sound=heard, face=face, box=box, confidence=confidence)
    collector.outputs(session.push(crops, face, windows, heard))
    return float(time[-1])
