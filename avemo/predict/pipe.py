"""`--input=-`: a container from a pipe, estimated as it arrives; nothing is stored, so there is no overlay."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from avemo.predict import writer
from avemo.predict.ensemble import Ensemble
from avemo.predict.predictor import Estimate, Predictor
from avemo.predict.session import Models
from avemo.predict.stream import Options
from avemo.predict.trace import Trace
from media import audio, video
from media.errors import UserError
from media.files import publish


def run(
    models: Models | Ensemble,
    source: BinaryIO,
    output: str,
    options: Options,
    files: Sequence[str] = ("csv", "json", "png"),
    causal: bool = False,
    emit: Callable[[str], Any] | None = None,
) -> dict[str, Any]:
    """Reads a container (Matroska, MPEG-TS, fragmented mp4, …) from `source` to its end.

    Args:
      models: the run; source: where bytes come from, in order.
      output: folder for `trace.csv`, `trace.json` and `trace.png`, as far as `files` names them.
      options: of the faces; one is followed.
      files: which files to write; causal: as for `Predictor`.
      emit: is given one JSON line an estimate, as soon as it is there; by default prints it.

    Returns:
      A summary with the latency.

    Raises:
      UserError: what arrives is no video, or breaks off.
    """
    emit = emit or (lambda line: print(line, flush=True))
    estimates: list[Estimate] = []
    began, predictor = time.time(), None
    try:
        with av.open(source, metadata_errors="ignore") as container:
            picture = next(iter(container.streams.video), None)
            sound = next(iter(container.streams.audio), None)
            if picture is None:
                raise UserError("the pipe has no picture track: predict sound from a file.")
            predictor = Predictor(models, causal=causal, sound=sound is not None, faces=options.faces)
            rate = float(picture.average_rate or 25)
            _demux(container, picture, sound, predictor, lambda: _flush(predictor, estimates, emit))
            predictor.close()
            _flush(predictor, estimates, emit)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"the pipe cannot be read as video ({error}): send Matroska or MPEG-TS.") from error
    if not estimates:
        raise UserError("the pipe ended before its first frame.")
    trace = _trace(estimates, models, rate, predictor)
    names = {"csv": writer.write_csv, "json": writer.write_json, "png": writer.write_png}
    with publish(output) as folder:
        for name in files:
            if name in names:
                names[name](trace, folder / f"trace.{name}")
        written = sorted(path.name for path in folder.iterdir())
    latency = {k: round(v, 4) for k, v in predictor.latency().items()}
    return {
        "input": "-",
        "output": str(output),
        "files": written,
        "frames": len(trace),
        "seconds": round(time.time() - began, 2),
        "latency": latency,
        "faces": [writer.summary(trace, 0)],
    }


def _demux(container: Any, picture: Any, sound: Any, predictor: Predictor, flush: Callable[[], None]) -> None:
    reformatter = VideoReformatter()
    resampler = av.AudioResampler(format="flt", layout="mono", rate=audio.SAMPLE_RATE)
    origin: float | None = None
    held: list[tuple[float, np.ndarray]] = []  # sound that arrives before the first picture sets time 0
    for packet in container.demux([s for s in (picture, sound) if s is not None]):
        for frame in packet.decode():
            if isinstance(frame, av.VideoFrame):
                origin = frame.time if origin is None else origin
                predictor.push(video._upright(frame, reformatter), frame.time - origin)
                for start, samples in held:
                    predictor.push_audio(samples, start - origin)
                held.clear()
                flush()
                continue
            start = frame.time or 0.0
            frame.pts = None  # the time is kept here; odd time bases make the resampler fail
            for part in resampler.resample(frame):
                samples = part.to_ndarray().reshape(-1)
                if origin is None:
                    held.append((start, samples))
                else:
                    predictor.push_audio(samples, start - origin)
    flush()


def _flush(predictor: Predictor, estimates: list[Estimate], emit: Callable[[str], Any]) -> None:
    for estimate in predictor.drain():
        estimates.append(estimate)
        line = {"time": round(estimate.time, 4), "valence": estimate.valence, "arousal": estimate.arousal}
        line |= {"probabilities": dict(estimate.probabilities)} if estimate.probabilities else {}
        line |= {"spread": estimate.spread} if estimate.spread is not None else {}
        emit(json.dumps({**line, "face": estimate.face, "latency": round(estimate.latency, 4)}))


def _trace(estimates: list[Estimate], models: Models | Ensemble, rate: float, predictor: Predictor) -> Trace:
    nan = float("nan")
    values: dict[str, np.ndarray] = {}
    if models.class_names:
        rows = [[e.probabilities.get(n, nan) for n in models.class_names] for e in estimates]
        values["probabilities"] = np.array([rows], np.float32)
        with np.errstate(invalid="ignore"):
            known = np.isfinite(values["probabilities"][0]).all(-1)
        logs = np.log(np.maximum(values["probabilities"][:, known], 1e-12)).mean(1)
        clip = np.exp(logs - logs.max(-1, keepdims=True)) if known.any() else np.full((1, len(models.class_names)), nan)
        values["clip"] = (clip / clip.sum(-1, keepdims=True)).astype(np.float32)
    else:
        rows = [[nan if e.valence is None else e.valence, nan if e.arousal is None else e.arousal] for e in estimates]
        values["traces"] = np.array([rows], np.float32)
    if estimates[0].spread is not None:
        values["spread"] = np.array([[e.spread for e in estimates]], np.float32)
    if estimates[0].gates is not None:
        values["gates"] = np.array([[e.gates for e in estimates]], np.float32)
    notes = {
        "input": "-",
        "run": {"workdir": models.workdir, "task": models.task},
        "fps": rate,
        "sees": models.visual is not None,
        "hears": models.audio is not None,
        "delay": models.delay,
        "latency": predictor.latency(),
    }
    return Trace(
        np.array([e.time for e in estimates]),
        (0,),
        np.array([[e.face for e in estimates]]),
        np.array([[e.box for e in estimates]], np.float32),
        np.array([[e.confidence for e in estimates]], np.float32),
        np.array([e.sound for e in estimates]),
        values,
        models.class_names,
        notes,
    )
