"""From a recording to `clips` records, for every corpus of videos or sound files."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from data_prep import coverage
from data_prep.coverage import Span
from media import audio, video
from media.container import ReadOptions
from media.errors import UserError
from media.faces import FaceFrame, FaceOptions, Follower, bridge_gaps
from media.records import MAX_FRAMES, jpeg


@dataclasses.dataclass(frozen=True)
class ClipOptions(FaceOptions, ReadOptions):
    """Options for corpora of recordings: those for faces and for reading files, and these.

    fps: at most this many frames per second, 0 = all; max_frames: most frames in one record; min_coverage: share of a
    recording that its annotation of valence and arousal must cover.
    """

    fps: float = 0.0
    max_frames: int = MAX_FRAMES
    min_coverage: float = 0.5

    def check(self) -> None:
        """Raises a `UserError` for values that cannot work."""
        super().check()
        self.check_reading()
        if self.fps < 0:
            raise UserError(f"--fps must not be negative; it is {self.fps}.")
        if self.max_frames < 1:
            raise UserError(f"--max_frames must be at least 1, not {self.max_frames}.")
        if not 0 <= self.min_coverage <= 1:
            raise UserError(f"--min_coverage is a share from 0 to 1, not {self.min_coverage}.")


@dataclasses.dataclass(frozen=True)
class Annotation:
    """Continuous annotation at the times of some frames, NaN where it is missing.

    targets: float32 `[T, 2]` (valence, arousal); raters: float32 `[T, R, 2]`, R >= 1.
    """

    targets: np.ndarray
    raters: np.ndarray


Annotate = Callable[[np.ndarray], Annotation]  # from times [T] in seconds to the annotation at these times


def no_annotation(time: np.ndarray) -> Annotation:
    """Annotates a recording that nobody rated."""
    return Annotation(np.full((len(time), 2), np.nan, np.float32), np.full((len(time), 1, 2), np.nan, np.float32))


def clip_records(
    recording: str,
    *,
    options: ClipOptions,
    subject: str = "",
    picture: pathlib.Path | None = None,
    sound: pathlib.Path | None = None,
    annotate: Annotate = no_annotation,
    spans: Sequence[Span] = (),
    label: int = -1,
) -> Iterator[dict[str, Any]]:
    """Yields the `clips` records of one recording, in order.

    Time 0 is the first frame (the first sample if there is no video). A separate sound file starts at time 0; the
    video's own track keeps its offset to the frames.

    Args:
      recording: its name; subject: who is seen and heard.
      options: for faces and clips.
      picture: a video; None = frames without a face at `options.fps` (25 by default) over the sound.
      sound: a sound file; None = the video's own track.
      annotate: gives the annotation at the frames' times.
      spans: the times of its annotations.
      label: the clip's emotion, -1 = none.

    Raises:
      BadItem: the video or the sound cannot be decoded to its end, or the annotation does not belong to them.
    """
    source = sound or picture
    if source is None:
        raise ValueError("a recording needs a video or a sound file")
    said: list[str] = []
    heard = audio.load(source, options, said.append)
    if picture is None:
        rate = options.fps or 25.0
        heard = heard.shifted(-heard.start)
        faces = _frames_without_picture(heard.duration, rate, Follower(options).black)
    else:
        rate = video.probe(picture, options).fps
        if options.fps:
            rate = min(rate, options.fps)
        frames = video.decode(picture, fps=options.fps or None, threads=1, options=options, note=said.append)
        first = next(frames)
        origin = first.time
        heard = heard.shifted(-heard.start if sound is not None else -origin)
        shifted = (video.Frame(frame.time - origin, frame.image) for frame in itertools.chain([first], frames))
        faces = Follower(options)(shifted)
    segments = segment_records(
        recording, faces, heard, rate, options, subject=subject, annotate=annotate, spans=spans, label=label
    )
    told: set[str] = set()
    for record in segments:
        new = [line for line in dict.fromkeys(said) if line not in told]
        told.update(new)
        yield {**record, "flags": [*record["flags"], *new]}


def _frames_without_picture(seconds: float, fps: float, black: bytes) -> Iterator[FaceFrame]:
    for i in range(max(1, int(np.floor(seconds * fps + 1e-6)))):
        yield FaceFrame(i / fps, black, False, (0.0, 0.0, 0.0, 0.0), 0.0)


def segment_records(
    recording: str,
    faces: Iterator[FaceFrame],
    heard: audio.Sound,
    rate: float,
    options: ClipOptions,
    *,
    subject: str = "",
    annotate: Annotate = no_annotation,
    spans: Sequence[Span] = (),
    flags: Sequence[str] = (),
    label: int = -1,
) -> Iterator[dict[str, Any]]:
    """Cuts a recording, given as one face per frame and its sound on the same clock, into `clips` records.

    Args:
      recording: its name; subject: who is seen and heard.
      faces: one per frame, in order of time.
      heard: the sound; `audio.NO_SOUND` if there is none.
      rate: frames per second, used only if there is a single frame.
      options: for faces and clips.
      annotate: gives the annotation at the frames' times.
      spans: the times of its annotations.
      flags: what the card counts about this recording.
      label: the clip's emotion, -1 = none.

    Raises:
      BadItem: the annotation does not belong to the recording.
    """
    for segment, (run, is_last) in enumerate(_runs(faces, options.max_frames)):
        if segment == 0 and len(run) > 1:  # the time stamps are more accurate than the average in the header
            rate = (len(run) - 1) / (run[-1].time - run[0].time)
        found = [sound_flag(heard), *flags] if segment == 0 else []
        if is_last:
            found += coverage.check(spans, run[-1].time + 1 / rate, options.min_coverage)
        yield {
            "recording": recording,
            "subject": subject,
            "segment": segment,
            "fps": np.float32(rate),
            "label": label,
            **_face_fields(run, options),
            **_sound_fields(run, heard),
            **_annotation_fields(run, annotate),
            "flags": [flag for flag in found if flag],  # for the card only: the schema has no such field
        }


def _runs(faces: Iterator[FaceFrame], longest: int) -> Iterator[tuple[list[FaceFrame], bool]]:
    """Cuts frames into runs of at most `longest`; also says of each whether it is the last."""
    head = next(faces, None)
    while head is not None:
        run = [head, *itertools.islice(faces, longest - 1)]
        head = next(faces, None)
        yield run, head is None


# A recording's sound is called clipped above this share of samples at full scale: a tenth of a second in 100 s.
CLIPPED_SHARE = 0.001


def sound_flag(heard: audio.Sound) -> str:
    """What is wrong with a recording's sound: "no sound", "silent", "clipped", or "" for nothing."""
    if not heard.duration:
        return "no sound"
    if heard.silent:
        return "silent"
    return "clipped" if heard.clipped > CLIPPED_SHARE else ""


def _times(run: Sequence[FaceFrame]) -> np.ndarray:
    return np.array([face.time for face in run])


def _face_fields(run: Sequence[FaceFrame], options: ClipOptions) -> dict[str, Any]:
    time = _times(run)
    mask = np.array([face.mask for face in run])
    box = np.array([face.box for face in run], np.float32)
    return {
        "time": time.astype(np.float32),
        "frames": [jpeg(face.jpeg) for face in run],
        "face_mask": mask,
        "face_box": bridge_gaps(time, box, mask, options.max_gap),
        "face_confidence": np.array([face.confidence for face in run], np.float32),
    }


def _sound_fields(run: Sequence[FaceFrame], heard: audio.Sound) -> dict[str, Any]:
    index, audible = audio.align(_times(run), heard)
    rows, index = audio.window_rows(heard.log_mel, index, audible)
    return {"log_mel": rows, "audio_index": index, "audio_mask": audible}


def _annotation_fields(run: Sequence[FaceFrame], annotate: Annotate) -> dict[str, Any]:
    annotation = annotate(_times(run))
    known = np.isfinite(annotation.targets).all(axis=1)
    return {
        "targets": np.where(known[:, None], annotation.targets, 0).astype(np.float32),
        "target_mask": known,
        "raters": np.asarray(annotation.raters, np.float32),
    }
