"""`launch.py predict`: a recording, a folder of recordings or a pipe in, files out."""

import collections
import dataclasses
import json
import logging
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from avemo.predict import overlay, recording, standard_input, stream, trace_files, viewer
from avemo.predict.models import Models, open_models
from avemo.predict.recording import Recording
from avemo.predict.trace import Trace
from avemo.runs import compilation_cache, installed
from media.container import MAX_MEGAPIXELS, ReadOptions
from media.errors import UserError, unknown
from media.faces import FaceOptions
from media.files import publish, shown

logger = logging.getLogger(__name__)
FILES = (*trace_files.WRITERS, "overlay", "viewer")


def predict(
    workdir: str,
    input: str,
    output: str,
    *,
    face: str = "largest",
    fps: float = 0.0,
    files: Sequence[str] = FILES,
    visual: str | None = None,
    audio: str | None = None,
    causal: bool = False,
    audio_track: int = -1,
    max_megapixels: float = MAX_MEGAPIXELS,
    progress: bool | None = None,
    **faces: Any,
) -> dict[str, Any]:
    """Runs recordings through a run and writes their traces.

    Args:
      workdir: run folder of any stage, or the name of a released run; a fusion run finds its encoders itself.
        Several runs of one kind, separated by commas, are averaged.
      input: a video or sound file, a folder of them (at any depth), or "-" for a container on standard input.
      output: folder for the files. If the input is a folder, it gets one folder per recording and `summary.json`.
      face: "largest", "all", or a face's number in the output of "all".
      fps: analyse at most this many frames per second; 0 = as the run was trained.
      files: which files to write, among csv, json, png, overlay, viewer.
      visual, audio: encoder runs to use instead of those recorded in a fusion run.
      causal: with a pipe, let sound windows end at their frame, so that no frame waits for sound (see `Predictor`).
      audio_track: the sound track to use, counted from 0; -1 = the file's default one.
      max_megapixels: larger pictures are refused before they are decoded.
      progress: whether to draw a progress bar; by default if stderr is a terminal.
      **faces: fields of `FaceOptions` that replace those of the training videos (`detector`, `detector_model`, …).

    Returns:
      A summary: the files written and the recording in a few numbers; for a folder, `done` and `failed`.

    Raises:
      UserError: bad input, described in one line; for a folder only if no file in it could be read.
    """
    for name in files:
        if name not in FILES:
            raise unknown("file of --files", name, FILES)
    stream.Options(face, fps).check()
    reading = ReadOptions(max_megapixels, audio_track)
    reading.check_reading()
    if causal and input != "-":
        raise UserError("--causal needs --input=-: in a file, the sound after a frame is already there.")
    faces = {k: v for k, v in faces.items() if v is not None}
    if faces.get("detector"):  # report mistakes before any network is opened
        FaceOptions(**faces).check()
    workdir, began = installed.find(workdir), time.time()
    compilation_cache.keep()
    # A pipe is processed frame by frame, so a larger batch would only be padding.
    models = open_models(workdir, visual, audio, **({"batch_size": 1} if input == "-" else {}))
    chosen = dataclasses.replace(models.faces, **faces)
    options = stream.Options(face, fps, chosen)
    if models.visual is not None:
        chosen.check()
    logger.info("opened %s in %.1f s.", workdir, time.time() - began)
    show = sys.stderr.isatty() if progress is None else progress
    if input == "-":
        return standard_input.predict_pipe(models, sys.stdin.buffer, output, options, files, causal, reading=reading)
    if os.path.isdir(input):
        return _predict_folder(models, pathlib.Path(input), pathlib.Path(output), options, files, show, reading)
    return predict_file(models, input, output, options, files, show, reading)


def predict_file(
    models: Models,
    input: str | os.PathLike,
    output: str | os.PathLike,
    options: stream.Options = stream.Options(),  # noqa: B008 - frozen
    files: Sequence[str] = FILES,
    progress: bool = False,
    reading: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Runs one recording and writes its files; returns its summary."""
    source = recording.probe(input, reading)
    began = time.time()
    with publish(output) as folder:
        bar = _progress_bar(source, progress)
        try:
            trace = stream.analyse(models, source, options, bar.update_to)
        finally:
            bar.close()
        analysed = time.time() - began
        written = write(trace, source, folder, files)
    seconds = time.time() - began
    length = float(trace.time[-1]) + 1 / trace.fps
    logger.info(
        "%s: %d frames in %.1f s (%.1f times real time; the analysis alone %.1f).",
        source.path, len(trace), seconds, length / seconds, length / analysed,
    )  # fmt: skip
    return {
        "input": str(source.path),
        "output": str(output),
        "files": written,
        "frames": len(trace),
        "duration": round(length, 3),
        "seconds": round(seconds, 2),
        "faces": [trace_files.summary(trace, person) for person in range(len(trace.persons))],
        **({} if "traces" in trace.values else {"valence_and_arousal": trace_files.NO_TRACES}),
        **({"notes": trace.notes["notes"]} if "notes" in trace.notes else {}),
    }


def write(trace: Trace, source: Recording, folder: pathlib.Path, files: Sequence[str]) -> list[str]:
    """Writes the chosen files of a trace into `folder`; returns their names."""
    trace_files.write(trace, folder, files)
    if "overlay" in files or "viewer" in files:
        layout = None
        if source.picture:
            layout = overlay.write(trace, source, folder / "overlay.mp4")
        else:
            overlay.write_sound(source, folder / "sound.m4a")
        if "viewer" in files:
            viewer.write(trace, folder / "viewer.html", folder / ("overlay.mp4" if layout else "sound.m4a"), layout)
    return sorted(path.name for path in folder.iterdir())


class _ProgressBar(tqdm):
    def update_to(self, seconds: float) -> None:
        """Moves the bar to a time of the recording."""
        self.update(round(seconds, 2) - self.n)


def _progress_bar(source: Recording, show: bool) -> _ProgressBar:
    form = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}, {rate_fmt}]"
    total = source.duration or None
    return _ProgressBar(
        total=total, desc=source.path.name, unit="s", disable=not show, bar_format=form if total else None, leave=False
    )


def _predict_folder(
    models: Models,
    input: pathlib.Path,
    output: pathlib.Path,
    options: stream.Options,
    files: Sequence[str],
    show: bool,
    reading: ReadOptions,
) -> dict[str, Any]:
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []

    def unreadable(error: OSError) -> None:
        failed.append({"input": str(error.filename), "error": f"{error.filename} cannot be read: {error.strerror}."})
        logger.warning("%s", failed[-1]["error"])

    over: list[str] = []
    found = recording.find(
        input,
        unreadable,
        skip=() if output.resolve() == input.resolve() else (output,),
        passed_over=lambda path: over.append(shown(path.relative_to(input))),
    )
    if over:
        first = ", ".join(over[:3]) + (", …" if len(over) > 3 else "")
        logger.warning("%d files in %s are neither video nor sound: %s.", len(over), input, first)
    namesakes = collections.Counter(path.with_suffix("") for path in found)
    for number, path in enumerate(found, 1):
        relative = path.relative_to(input)
        # Two files that differ only in their suffix must not share a folder.
        target = output / (relative if namesakes[path.with_suffix("")] > 1 else relative.with_suffix(""))
        try:
            done.append(predict_file(models, path, target, options, files, show, reading))
        except UserError as error:
            failed.append({"input": str(path), "error": str(error)})
            logger.warning("%d of %d failed: %s", number, len(found), error)
    if not done:
        raise UserError(f"none of the {len(found)} files in {input} could be read; the first: {failed[0]['error']}")
    summary = {"done": done, "failed": failed, "passed_over": over}
    with publish(output) as folder:
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    logger.info("%d done, %d failed: see %s.", len(done), len(failed), output / "summary.json")
    return summary
