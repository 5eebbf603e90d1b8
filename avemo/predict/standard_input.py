"""`--input=-`: a container from a pipe, estimated as it arrives. Nothing is stored, so there is no overlay."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np

from avemo.predict import trace_files
from avemo.predict.models import Models
from avemo.predict.predictor import Estimate, Predictor
from avemo.predict.stream import Notes, Options, notes_of
from avemo.predict.trace import EXPERTS, Trace, clip_probabilities
from media import audio, video
from media.container import Container, ReadOptions, opened
from media.downmix import Mono
from media.errors import BadItem, UserError
from media.files import publish


def predict_pipe(
    models: Models,
    source: BinaryIO,
    output: str,
    options: Options,
    files: Sequence[str] = tuple(trace_files.WRITERS),
    causal: bool = False,
    emit: Callable[[str], Any] | None = None,
    reading: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Reads a container (Matroska, MPEG-TS, fragmented mp4, …) from `source` to its end.

    Args:
      models: the run.
      source: the container's bytes, in order.
      output: folder for those of `trace.csv`, `trace.json` and `trace.png` that `files` names.
      options: how to look for faces; one face is followed.
      files: which files to write.
      causal: as for `Predictor`.
      emit: called with one line of JSON per estimate as soon as it is made; prints it by default.
      reading: which sound track is heard, and how large pictures may be.

    Returns:
      A summary with the latency.

    Raises:
      UserError: the bytes are not a video, or the video breaks off.
    """
    emit = emit or (lambda line: print(line, flush=True))
    estimates: list[Estimate] = []
    began, said = time.time(), Notes("the pipe")
    try:
        with _open(source, reading, said) as pipe:
            rate = video.frame_rate(pipe.picture_track())
            sound = pipe.sound_track() if models.audio is not None else pipe.sound
            predictor = Predictor(models, causal=causal, sound=sound is not None, faces=options.faces)
            for item in _decoded(pipe, reading, said):
                if isinstance(item, video.Frame):
                    predictor.push(item.image, item.time)
                else:
                    predictor.push_audio(item.samples, item.start)
                estimates += _emit(predictor, emit)
            predictor.close()
            estimates += _emit(predictor, emit)
    except BadItem as error:
        raise UserError(f"the pipe cannot be read to its end as video ({error}): send Matroska or MPEG-TS.") from error
    if not estimates:
        raise UserError("the pipe ended before its first frame.")
    trace = _trace(estimates, models, rate, predictor, said.lines)
    with publish(output) as folder:
        trace_files.write(trace, folder, files)
        written = sorted(path.name for path in folder.iterdir())
    latency = {k: round(v, 4) for k, v in predictor.latency().items()}
    return {
        "input": "-",
        "output": str(output),
        "files": written,
        "frames": len(trace),
        "seconds": round(time.time() - began, 2),
        "latency": latency,
        "faces": [trace_files.summary(trace, 0)],
        **({} if "traces" in trace.values else {"valence_and_arousal": trace_files.NO_TRACES}),
        **({"notes": said.lines} if said.lines else {}),
    }


class _Samples(NamedTuple):
    """Sound: samples float32 `[n]`, mono, 16 kHz, and the time of the first one in seconds."""

    samples: np.ndarray
    start: float


@contextlib.contextmanager
def _open(source: BinaryIO, reading: ReadOptions, said: Notes) -> Iterator[Container]:
    """Opens a container that arrives through a pipe.

    Raises:
      UserError: it has no picture track.
      BadItem: FFmpeg cannot read it.
    """
    with contextlib.ExitStack() as stack:
        try:
            pipe = stack.enter_context(opened(source, reading, said))
        except av.FFmpegError as error:
            raise BadItem(str(error)) from error
        if pipe.picture is None:
            raise UserError("the pipe has no picture track: predict sound from a file.")
        yield pipe


def _decoded(pipe: Container, reading: ReadOptions, said: Notes) -> Iterator[video.Frame | _Samples]:
    """Yields the frames and samples of a container as they arrive, as from a file; time 0 is the first frame.

    Raises:
      BadItem: FFmpeg cannot read it, or it breaks off. An error of the caller's stays what it is.
    """
    picture = pipe.picture_track()
    times, image_of = video.FrameTimes(video.frame_rate(picture), said), video.ImageOf(picture, reading, said)
    mono, place = Mono(audio.SAMPLE_RATE), audio.Gapless()
    origin: float | None = None
    held: list[np.ndarray] = []  # sound that arrives before the first frame, which sets time 0

    def heard(frame: av.AudioFrame | None) -> Iterator[_Samples]:
        for seconds, samples in mono(frame):
            held.extend(place(seconds, samples))
        while held and origin is not None:
            yield _Samples(held.pop(0), (place.start or 0.0) - origin)

    try:
        for packet in pipe.packets():
            for frame in packet.decode():
                if isinstance(frame, av.VideoFrame):
                    time = times(frame)
                    origin = time if origin is None else origin
                    yield video.Frame(time - origin, image_of(frame))
                elif isinstance(frame, av.AudioFrame):
                    yield from heard(frame)
        yield from heard(None)
    except (av.FFmpegError, ValueError) as error:  # PyAV's own: a frame of another format than the track's
        raise BadItem(str(error)) from error


def _emit(predictor: Predictor, emit: Callable[[str], Any]) -> Iterator[Estimate]:
    """Passes on the estimates that are ready, after giving each to `emit` as JSON."""
    for estimate in predictor.drain():
        line: dict[str, Any] = {
            "time": round(estimate.time, 4),
            "valence": estimate.valence,
            "arousal": estimate.arousal,
        }
        line |= {"probabilities": dict(estimate.probabilities)} if estimate.probabilities else {}
        line |= {f"{expert}_alone": dict(said) for expert, said in estimate.alone.items()}
        line |= {"spread": estimate.spread} if estimate.spread is not None else {}
        emit(json.dumps({**line, "face": estimate.face, "latency": round(estimate.latency, 4)}))
        yield estimate


def _trace(estimates: list[Estimate], models: Models, rate: float, predictor: Predictor, said: Sequence[str]) -> Trace:
    nan = float("nan")
    values: dict[str, np.ndarray] = {}
    if models.class_names:
        probabilities = [[e.probabilities.get(n, nan) for n in models.class_names] for e in estimates]
        values["probabilities"] = np.array([probabilities], np.float32)
        values["clip"] = clip_probabilities(np.log(np.maximum(values["probabilities"], 1e-12)))
    else:
        pairs = [[nan if e.valence is None else e.valence, nan if e.arousal is None else e.arousal] for e in estimates]
        values["traces"] = np.array([pairs], np.float32)
    named = {EXPERTS[modality]: names for modality, names in models.expert_names.items()}
    for expert, names in named.items():
        alone = [[e.alone.get(expert, {}).get(name, nan) for name in names] for e in estimates]
        values[expert] = np.array([alone], np.float32)
        values[f"{expert}_clip"] = clip_probabilities(np.log(np.maximum(values[expert], 1e-12)))
    if estimates[0].spread is not None:
        values["spread"] = np.array([[e.spread for e in estimates]], np.float32)
    if estimates[0].gates is not None:
        values["gates"] = np.array([[e.gates for e in estimates]], np.float32)
    notes = notes_of(models, "-", rate, models.visual is not None, models.audio is not None, said)
    return Trace(
        time=np.array([e.time for e in estimates]),
        persons=(0,),
        face=np.array([[e.face for e in estimates]]),
        box=np.array([[e.box for e in estimates]], np.float32),
        confidence=np.array([[e.confidence for e in estimates]], np.float32),
        sound=np.array([e.sound for e in estimates]),
        values=values,
        class_names=models.class_names,
        expert_names=named,
        notes={**notes, "latency": predictor.latency()},
    )
