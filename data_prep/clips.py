"""A recording to `clips` records: the way every corpus of videos or sound takes."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from media import audio, video
from media.errors import UserError
from media.faces import FaceFrame, FaceOptions, Follower, bridge_gaps
from media.records import MAX_FRAMES, jpeg


@dataclasses.dataclass(frozen=True)
class ClipOptions(FaceOptions):
    """Options of corpora of recordings, beside those of the faces.

    fps: at most so many frames a second, 0 = all; max_frames: longest run of frames in one record.
    """

    fps: float = 0.0
    max_frames: int = MAX_FRAMES

    def check(self) -> None:
        """Raises a `UserError` for values that cannot work."""
        super().check()
        if self.fps < 0:
            raise UserError(f"--fps must not be negative, it is {self.fps}.")
        if self.max_frames < 1:
            raise UserError(f"--max_frames must be at least 1, not {self.max_frames}.")


@dataclasses.dataclass(frozen=True)
class Traces:
    """Continuous annotation at the times of frames, NaN where there is none.

    targets: float32 `[T, 2]` (valence, arousal); raters: float32 `[T, R, 2]`, R >= 1.
    """

    targets: np.ndarray
    raters: np.ndarray


def no_traces(time: np.ndarray) -> Traces:
    """The traces of a recording that nobody annotated."""
    return Traces(np.full((len(time), 2), np.nan, np.float32), np.full((len(time), 1, 2), np.nan, np.float32))


def clip_records(
    recording: str,
    *,
    options: ClipOptions,
    subject: str = "",
    picture: pathlib.Path | None = None,
    sound: pathlib.Path | None = None,
    traces: Callable[[np.ndarray], Traces] = no_traces,
    label: int = -1,
) -> Iterator[dict[str, Any]]:
    """Yields the `clips` records of one recording, in order.

    Time 0 is the first frame (the first sample, without a picture). Sound from a file of its own begins at time 0; the
    video's own track keeps its distance to the picture.

    Args:
      recording: its name; subject: who is seen and heard.
      options: of faces and clips.
      picture: a video; None = frames without a face at regular times, `options.fps` or 25 a second, over the sound.
      sound: a sound file; None = the video's own track.
      traces: gives the annotation at the times it is asked for.
      label: the clip's emotion, -1 = none.

    Raises:
      BadItem: picture or sound cannot be decoded.
    """
    if sound is None and picture is None:
        raise ValueError("a recording needs a picture or a sound")
    heard = audio.load(sound if sound is not None else picture)
    if picture is None:
        rate = options.fps or 25.0
        count = max(1, int(np.floor(heard.duration * rate + 1e-6)))
        heard = heard.shifted(-heard.start)
        black = Follower(options).black
        faces: Iterator[FaceFrame] = (
            FaceFrame(i / rate, black, False, (0.0, 0.0, 0.0, 0.0), 0.0) for i in range(count)
        )
    else:
        rate = video.probe(picture).fps
        frames = video.decode(picture, fps=options.fps or None, threads=1)
        first = next(frames)
        origin = first.time
        heard = heard.shifted(-heard.start if sound is not None else -origin)
        if options.fps:
            rate = min(rate, options.fps)
        shifted = (video.Frame(frame.time - origin, frame.image) for frame in itertools.chain([first], frames))
        faces = Follower(options)(shifted)
    yield from segment_records(recording, faces, heard, rate, options, subject=subject, traces=traces, label=label)


def segment_records(
    recording: str,
    faces: Iterator[FaceFrame],
    heard: audio.Sound,
    rate: float,
    options: ClipOptions,
    *,
    subject: str = "",
    traces: Callable[[np.ndarray], Traces] = no_traces,
    label: int = -1,
) -> Iterator[dict[str, Any]]:
    """Cuts a recording, given as its frames' faces and its sound on the same clock, into `clips` records.

    Args:
      recording: its name; subject: who is seen and heard.
      faces: one a frame, in order of time.
      heard: the sound; `audio.NO_SOUND` where there is none.
      rate: frames a second, used where there is but one frame.
      options: of faces and clips.
      traces: gives the annotation at the times it is asked for.
      label: the clip's emotion, -1 = none.
    """
    for segment in itertools.count():
        run = list(itertools.islice(faces, options.max_frames))
        if not run:
            return
        if segment == 0 and len(run) > 1:  # the stamps know better than the header's average
            rate = (len(run) - 1) / (run[-1].time - run[0].time)
        yield _record(run, recording, subject, segment, rate, heard, traces, label, options)


# Share of samples at full scale above which a recording's sound is called clipped: a tenth of a second in 100 s.
CLIPPED_SHARE = 0.001


def sound_flag(heard: audio.Sound) -> str:
    """What is wrong with a recording's sound: "no sound", "silent", "clipped", or "" for nothing."""
    if not heard.duration:
        return "no sound"
    if heard.silent:
        return "silent"
    return "clipped" if heard.clipped > CLIPPED_SHARE else ""


def _record(
    run: Sequence[FaceFrame],
    recording: str,
    subject: str,
    segment: int,
    rate: float,
    heard: audio.Sound,
    traces: Callable[[np.ndarray], Traces],
    label: int,
    options: ClipOptions,
) -> dict[str, Any]:
    time = np.array([face.time for face in run])
    mask = np.array([face.mask for face in run])
    box = np.array([face.box for face in run], np.float32)
    index, audible = audio.align(time, heard)
    rows, index = audio.window_rows(heard.log_mel, index, audible)
    annotation = traces(time)
    known = np.isfinite(annotation.targets).all(axis=1)
    return {
        "recording": recording,
        "subject": subject,
        "segment": segment,
        "fps": np.float32(rate),
        "time": time.astype(np.float32),
        "frames": [jpeg(face.jpeg) for face in run],
        "face_mask": mask,
        "face_box": bridge_gaps(time, box, mask, options.max_gap),
        "face_confidence": np.array([face.confidence for face in run], np.float32),
        "log_mel": rows,
        "audio_index": index,
        "audio_mask": audible,
        "targets": np.where(known[:, None], annotation.targets, 0).astype(np.float32),
        "target_mask": known,
        "raters": np.asarray(annotation.raters, np.float32),
        "label": label,
        "sound_flag": sound_flag(heard),  # for the card; no field of the stored record, whose audio_mask says the rest
    }
