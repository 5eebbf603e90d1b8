"""`--input=-`: a container from a pipe, estimated as it arrives. Nothing is stored, so there is no overlay."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from avemo.predict import trace_files
from avemo.predict.models import Models
from avemo.predict.predictor import Estimate, Predictor
from avemo.predict.stream import Options, notes_of
from avemo.predict.trace import Trace, clip_probabilities
from media import audio, video
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

    Returns:
      A summary with the latency.

    Raises:
      UserError: the bytes are not a video, or the video breaks off.
    """
    emit = emit or (lambda line: print(line, flush=True))
    estimates: list[Estimate] = []
    began = time.time()
    try:
        with _Container(source) as container:
            predictor = Predictor(models, causal=causal, sound=container.has_sound, faces=options.faces)
            for item in container:
                if isinstance(item, video.Frame):
                    predictor.push(item.image, item.time)
                else:
                    predictor.push_audio(item.samples, item.start)
                estimates += _emit(predictor, emit)
            predictor.close()
            estimates += _emit(predictor, emit)
            rate = container.fps
    except BadItem as error:
        raise UserError(f"the pipe cannot be read as video ({error}): send Matroska or MPEG-TS.") from error
    if not estimates:
        raise UserError("the pipe ended before its first frame.")
    trace = _trace(estimates, models, rate, predictor)
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
    }


class _Samples(NamedTuple):
    """Sound: samples float32 `[n]`, mono, 16 kHz, and the time of the first one in seconds."""

    samples: np.ndarray
    start: float


class _Container:
    """The frames and samples of a container that arrives through a pipe; time 0 is the first frame.

    Raises:
      UserError: it has no picture track.
      BadItem: FFmpeg cannot read it. An error of the caller's stays what it is.
    """

    def __init__(self, source: BinaryIO):
        try:
            self._container = av.open(source, "r", metadata_errors="ignore")
        except av.FFmpegError as error:
            raise BadItem(str(error)) from error
        picture = next(iter(self._container.streams.video), None)
        sound = next(iter(self._container.streams.audio), None)
        if picture is None:
            self._container.close()
            raise UserError("the pipe has no picture track: predict sound from a file.")
        self.fps = float(picture.average_rate or 25)
        self.has_sound = sound is not None
        self._tracks = [track for track in (picture, sound) if track is not None]

    def __enter__(self) -> "_Container":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[video.Frame | _Samples]:
        reformatter = VideoReformatter()
        resampler = av.AudioResampler(format="flt", layout="mono", rate=audio.SAMPLE_RATE)
        origin: float | None = None
        last = 0.0
        held: list[_Samples] = []  # sound that arrives before the first frame, which sets time 0
        try:
            for packet in self._container.demux(self._tracks):
                for frame in packet.decode():
                    if isinstance(frame, av.VideoFrame):
                        last = last + 1 / self.fps if frame.time is None else frame.time
                        origin = last if origin is None else origin
                        yield video.Frame(last - origin, video.upright(frame, reformatter))
                        for samples, start in held:
                            yield _Samples(samples, start - origin)
                        held.clear()
                    elif isinstance(frame, av.AudioFrame):
                        start = frame.time or 0.0
                        frame.pts = None  # `start` has the time; unusual time bases make the resampler fail
                        for resampled in resampler.resample(frame):
                            samples = resampled.to_ndarray().reshape(-1)
                            if origin is None:
                                held.append(_Samples(samples, start))
                            else:
                                yield _Samples(samples, start - origin)
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
        line |= {"spread": estimate.spread} if estimate.spread is not None else {}
        emit(json.dumps({**line, "face": estimate.face, "latency": round(estimate.latency, 4)}))
        yield estimate


def _trace(estimates: list[Estimate], models: Models, rate: float, predictor: Predictor) -> Trace:
    nan = float("nan")
    values: dict[str, np.ndarray] = {}
    if models.class_names:
        probabilities = [[e.probabilities.get(n, nan) for n in models.class_names] for e in estimates]
        values["probabilities"] = np.array([probabilities], np.float32)
        values["clip"] = clip_probabilities(np.log(np.maximum(values["probabilities"], 1e-12)))
    else:
        pairs = [[nan if e.valence is None else e.valence, nan if e.arousal is None else e.arousal] for e in estimates]
        values["traces"] = np.array([pairs], np.float32)
    if estimates[0].spread is not None:
        values["spread"] = np.array([[e.spread for e in estimates]], np.float32)
    if estimates[0].gates is not None:
        values["gates"] = np.array([[e.gates for e in estimates]], np.float32)
    notes = notes_of(models, "-", rate, models.visual is not None, models.audio is not None)
    return Trace(
        time=np.array([e.time for e in estimates]),
        persons=(0,),
        face=np.array([[e.face for e in estimates]]),
        box=np.array([[e.box for e in estimates]], np.float32),
        confidence=np.array([[e.confidence for e in estimates]], np.float32),
        sound=np.array([e.sound for e in estimates]),
        values=values,
        class_names=models.class_names,
        notes={**notes, "latency": predictor.latency()},
    )
