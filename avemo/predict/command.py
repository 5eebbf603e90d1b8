"""`launch.py predict`: one recording, a folder of them, or a pipe, to files."""

import dataclasses
import json
import logging
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from avemo import runtime
from avemo.predict import media as sources
from avemo.predict import overlay, stream, viewer, writer
from avemo.predict.ensemble import Ensemble, open_models
from avemo.predict.session import Models
from avemo.predict.trace import Trace
from avemo.runs import installed
from media.errors import UserError, unknown
from media.faces import FaceOptions
from media.files import publish

logger = logging.getLogger(__name__)
FILES = ("csv", "json", "png", "overlay", "viewer")


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
    progress: bool | None = None,
    **faces: Any,
) -> dict[str, Any]:
    """Runs recordings through a run and writes their traces.

    Args:
      workdir: run folder of any stage, or the name of a released run; a fusion run finds its encoders by itself.
        Several of one kind, separated by commas, are averaged.
      input: a video or sound file, a folder of them (at any depth), or "-" for a container read from standard input.
      output: folder for the files; with a folder as input, one folder a recording in it and `summary.json`.
      face: "largest", "all", or a face's number as "all" gives it.
      fps: frames a second to analyse at most; 0 = as the run was trained.
      files: which to write, among csv, json, png, overlay, viewer.
      visual, audio: encoder runs in place of those that a fusion run names.
      causal: for a pipe, whether windows of sound end at their frame: nothing is waited for (see `Predictor`).
      progress: whether to draw a progress bar; by default where stderr is a terminal.
      **faces: options of `FaceOptions` that replace those of the training videos (`detector`, `detector_model`, …).

    Returns:
      A summary: the files written and the recording in a few numbers; for a folder `done` and `failed`.

    Raises:
      UserError: bad input, named in one line; for a folder only if nothing in it could be read.
    """
    for name in files:
        if name not in FILES:
            raise unknown("file of --files", name, FILES)
    stream.Options(face, fps).check()
    if causal and input != "-":
        raise UserError("--causal is for --input=-: a file has the sound that comes after a frame.")
    faces = {k: v for k, v in faces.items() if v is not None}
    if faces.get("detector"):  # what is wrong is said before any network is opened
        FaceOptions(**faces).check()
    workdir, began = installed.find(workdir), time.time()
    if os.access(workdir.split(",")[0], os.W_OK):
        runtime.cache_compilations(workdir.split(",")[0])
    # A pipe is worked on frame by frame: a larger batch would only be padding.
    models = open_models(workdir, visual, audio, **({"batch_size": 1} if input == "-" else {}))
    chosen = dataclasses.replace(models.faces, **faces)
    options = stream.Options(face, fps, chosen)
    if models.visual is not None:
        chosen.check()
    logger.info("opened %s in %.1f s.", workdir, time.time() - began)
    show = sys.stderr.isatty() if progress is None else progress
    if input == "-":
        from avemo.predict import pipe

        return pipe.run(models, sys.stdin.buffer, output, options, files, causal)
    if os.path.isdir(input):
        return _folder(models, pathlib.Path(input), pathlib.Path(output), options, files, show)
    return one(models, input, output, options, files, show)


def one(
    models: Models | Ensemble,
    input: str | os.PathLike,
    output: str | os.PathLike,
    options: stream.Options = stream.Options(),  # noqa: B008 - frozen
    files: Sequence[str] = FILES,
    progress: bool = False,
) -> dict[str, Any]:
    """Runs one recording and writes its files; returns the summary of it."""
    media = sources.probe(input)
    began = time.time()
    with publish(output) as folder:
        bar = _bar(media, progress)
        try:
            trace = stream.analyse(models, media, options, bar.update_to)
        finally:
            bar.close()
        analysed = time.time() - began
        written = write(trace, media, folder, files)
    seconds = time.time() - began
    length = float(trace.time[-1]) + 1 / trace.fps
    logger.info(
        "%s: %d frames in %.1f s (%.1f times real time, the analysis alone %.1f).",
        media.path, len(trace), seconds, length / seconds, length / analysed,
    )  # fmt: skip
    return {
        "input": str(media.path),
        "output": str(output),
        "files": written,
        "frames": len(trace),
        "duration": round(length, 3),
        "seconds": round(seconds, 2),
        "faces": [writer.summary(trace, person) for person in range(len(trace.persons))],
    }


def write(trace: Trace, media: sources.Media, folder: pathlib.Path, files: Sequence[str]) -> list[str]:
    """Writes the chosen files of a trace into `folder`; returns their names."""
    makers: dict[str, tuple[str, Callable[[pathlib.Path], Any]]] = {
        "csv": ("trace.csv", lambda path: writer.write_csv(trace, path)),
        "json": ("trace.json", lambda path: writer.write_json(trace, path)),
        "png": ("trace.png", lambda path: writer.write_png(trace, path)),
    }
    for name in ("csv", "json", "png"):
        if name in files:
            makers[name][1](folder / makers[name][0])
    if "overlay" in files or "viewer" in files:
        layout = None
        if media.picture:
            layout = overlay.write(trace, media, folder / "overlay.mp4")
        else:
            overlay.write_sound(media, folder / "sound.m4a")
        if "viewer" in files:
            viewer.write(trace, folder / "viewer.html", folder / ("overlay.mp4" if layout else "sound.m4a"), layout)
    return sorted(path.name for path in folder.iterdir())


class _Bar(tqdm):
    def update_to(self, seconds: float) -> None:
        """Sets the bar to so many seconds of the recording."""
        self.update(round(seconds, 2) - self.n)


def _bar(media: sources.Media, show: bool) -> _Bar:
    form = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}, {rate_fmt}]"
    total = media.declared or media.duration or None
    return _Bar(
        total=total, desc=media.path.name, unit="s", disable=not show, bar_format=form if total else None, leave=False
    )


def _folder(
    models: Models | Ensemble,
    input: pathlib.Path,
    output: pathlib.Path,
    options: stream.Options,
    files: Sequence[str],
    show: bool,
) -> dict[str, Any]:
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []

    def unreadable(error: OSError) -> None:
        failed.append({"input": str(error.filename), "error": f"{error.filename} cannot be read: {error.strerror}."})
        logger.warning("%s", failed[-1]["error"])

    found = sources.find(input, unreadable)
    for number, path in enumerate(found, 1):
        relative = path.relative_to(input)
        # Two files of one name and different endings must not share a folder.
        twins = sum(other.with_suffix("") == path.with_suffix("") for other in found) > 1
        target = output / (relative if twins else relative.with_suffix(""))
        try:
            done.append(one(models, path, target, options, files, show))
        except UserError as error:
            failed.append({"input": str(path), "error": str(error)})
            logger.warning("%d of %d failed: %s", number, len(found), error)
    if not done:
        raise UserError(f"none of {len(found)} files in {input} could be read; the first: {failed[0]['error']}")
    summary = {"done": done, "failed": failed}
    with publish(output) as folder:
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    logger.info("%d done, %d failed: see %s.", len(done), len(failed), output / "summary.json")
    return summary
