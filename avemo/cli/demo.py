"""The whole system end to end on a small corpus: the ordinary commands in order, then the report.

Preparation runs as separate processes, `python -m data_prep …`; the stages that need JAX run in this process. Every
stage is what a researcher runs on AffectNet, FEC and RECOLA, with smaller numbers. `demo.json` lists the commands.
"""

import dataclasses
import json
import logging
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from avemo import configuration, report
from avemo.evaluation import extract
from avemo.runs import compilation_cache
from avemo.training import train
from media import processes
from media.errors import UserError
from media.files import read_json, write_atomically

logger = logging.getLogger(__name__)
ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command: its name, its arguments after `python`, and a function that runs it in this process."""

    name: str
    command: tuple[str, ...]
    run: Callable[[], Any]


def run(workdir: str, corpus: str = "synthetic", source: str | None = None, seed: int = 0) -> dict[str, Any]:
    """Runs every stage that is not complete yet and writes `report.html`.

    Args:
      workdir: local folder for everything that the demo makes.
      corpus: "synthetic" or "real".
      source: folder of the real corpora, needed for "real".
      seed: of the synthetic corpus and of every stage.

    Returns:
      Dev metrics by stage, and the report's path.

    Raises:
      UserError: a stage fails, the source is missing, or the workdir belongs to another demo.
    """
    folder = pathlib.Path(workdir)
    if corpus == "real" and not (source and pathlib.Path(source).is_dir()):
        raise UserError(f"--corpus=real needs the corpora: --source={source or 'DIR'} is not a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to --workdir={workdir}: {error.strerror}.") from error
    compilation_cache.keep()
    notes = _notes(folder, corpus, source, seed)
    stages = _real(folder, pathlib.Path(source or ""), seed) if corpus == "real" else _synthetic(folder, seed)
    results: dict[str, Any] = {}
    for number, stage in enumerate(stages, 1):
        before = notes["stages"].get(stage.name, {})
        command = " ".join(("python", *stage.command))
        logger.info("[%d/%d] %s: %s", number, len(stages), stage.name, command)
        began = time.time()
        # Preparation completed by the same command is skipped; training stages check this themselves.
        if not (stage.command[0] == "-m" and before.get("command") == command):
            out = stage.run()
            if isinstance(out, dict) and "metrics" in out:
                results[stage.name] = out["metrics"].get("dev", {})
                logger.info(
                    "        dev: %s",
                    ", ".join(f"{k} {v:.3f}" for k, v in results[stage.name].items() if isinstance(v, float)),
                )
        seconds = round(time.time() - began, 1)
        notes["stages"][stage.name] = {
            "command": command,
            "seconds": before.get("seconds", seconds),
            "skipped": bool(before),
        }
        write_atomically(folder / "demo.json", json.dumps(notes, indent=2) + "\n")
    path = report.write(folder)
    logger.info("report: %s", path)
    return {"dev": results, "report": str(path)}


def _notes(folder: pathlib.Path, corpus: str, source: str | None, seed: int) -> dict[str, Any]:
    path = folder / "demo.json"
    if not path.exists():
        return {"corpus": corpus, "source": source, "seed": seed, "stages": {}}
    notes = read_json(path)
    for name, value in (("corpus", corpus), ("source", source), ("seed", seed)):
        if notes.get(name) != value:
            raise UserError(f"{folder} has a demo with --{name}={notes.get(name)}: choose another --workdir.")
    return notes


def _prepare(name: str, *arguments: str) -> Stage:
    """A stage of `data_prep`, run as a separate process; its error line becomes our error."""

    def call() -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        command = processes.ending_with_this(sys.executable, *arguments)
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        message = ""
        try:
            # The lines pass through at once, for the progress bar, except the error line, which is printed only once.
            for line in process.stderr or ():
                if line.startswith(b"error: "):
                    message = line.decode().strip().removeprefix("error: ")
                else:
                    sys.stderr.write(line.decode(errors="replace"))
        finally:
            if sys.exc_info()[0] is not None:
                process.terminate()
            status = process.wait()
        if status:
            raise UserError(message or f"stage {name} failed with status {process.returncode}: see its output above.")

    return Stage(name, arguments, call)


def _train(folder: pathlib.Path, name: str, config: str, seed: int, **fields: Any) -> Stage:
    """A training stage. `fields` are overrides, with `__` in place of dots."""
    overrides = [f"--config.{key.replace('__', '.')}={value}" for key, value in {**fields, "seed": seed}.items()]
    workdir = folder / name
    command = ("launch.py", "train", f"--config={config}", f"--workdir={workdir}", *overrides)
    path, _, variant = config.partition(":")
    return Stage(
        name,
        command,
        lambda: train.train_and_evaluate(configuration.load(f"{ROOT / path}:{variant}", overrides), str(workdir)),
    )


def _synthetic(folder: pathlib.Path, seed: int) -> list[Stage]:
    corpus, data = folder / "corpus", folder / "data"
    workers = f"--workers={os.cpu_count() or 1}"
    return [
        _prepare("corpus", "-m", "data_prep.synthetic", f"--output={corpus}", f"--seed={seed}", workers),
        _shards("affectnet", corpus / "affectnet", data, "affectnet"),
        _shards("fec", corpus / "fec", data, "fec"),
        _shards("unlabelled", corpus / "unlabelled", data, "unlabelled"),
        _shards("recola", corpus / "recola", data, "clips"),
        *_training(folder, "synthetic", seed, faces=data / "affectnet", triplets=data / "fec", sound=data / "clips"),
    ]


def _real(folder: pathlib.Path, source: pathlib.Path, seed: int) -> list[Stage]:
    """FER+ for faces and triplets, GRID and RAVDESS as unlabelled faces, RAVDESS speech for sound, takes for fusion."""
    data = folder / "data"
    models = sorted((source / "weights").glob("*yunet*.onnx"))
    detector = ("--detector=yunet", f"--detector_model={models[0]}") if models else ()
    unlabelled = _gather(folder / "unlabelled", source, "grid", "ravdess_clips")
    # The takes are actor 1's, so the audio encoder must not hear that voice.
    voices = ("--modality=audio", "--split=speaker", "--test_speakers=1", "--dev_speakers=11,12")
    return [
        _shards("fer", source / "ferplus", data, "fer"),
        _shards("fer_triplets", source / "ferplus", data, "fer_triplets"),
        _shards("unlabelled", unlabelled, data, "unlabelled", *detector),
        _shards("ravdess", source / "ravdess_speech", data, "speech", *voices),
        _shards("ravdess", source / "ravdess_takes", data, "clips", "--split=take", *detector),
        *_training(folder, "real", seed, faces=data / "fer", triplets=data / "fer_triplets", sound=data / "speech"),
    ]


def _gather(folder: pathlib.Path, source: pathlib.Path, *names: str) -> pathlib.Path:
    """Makes a folder of links to several folders, so that all of them are prepared as one corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        link = folder / name
        if not link.exists():
            link.symlink_to((source / name).resolve(), target_is_directory=True)
    return folder


def _shards(corpus: str, source: pathlib.Path, output: pathlib.Path, name: str, *extra: str) -> Stage:
    """A stage that prepares one corpus as `output/name`."""
    return _prepare(
        f"prepare_{name}",
        "-m",
        "data_prep",
        corpus,
        f"--source={source}",
        f"--output={output}",
        f"--name={name}",
        f"--workers={os.cpu_count() or 1}",
        *extra,
    )


def _training(
    folder: pathlib.Path, variant: str, seed: int, *, faces: pathlib.Path, triplets: pathlib.Path, sound: pathlib.Path
) -> list[Stage]:
    """The stages teacher, student, audio encoder, features, fusion, and each modality alone."""
    data = folder / "data"
    stills = {"data__faces": faces, "data__triplets": triplets}
    student = {"teacher": folder / "teacher", **stills, "data__unlabelled": data / "unlabelled"}
    runs = (str(folder / "student"), str(folder / "audio"))
    clips, output = str(data / "clips"), str(folder / "features")
    command = ("launch.py", "extract", f"--workdir={','.join(runs)}", f"--data={clips}", f"--output={output}")
    stages = [
        _train(folder, "teacher", f"configs/demo/teacher.py:{variant}", seed, **stills),
        _train(folder, "student", f"configs/demo/student.py:{variant}", seed, **student),
        _train(folder, "audio", f"configs/demo/audio.py:{variant}", seed, data__clips=sound),
        Stage("extract", command, lambda: extract.extract(runs, clips, output)),
    ]
    alone = {"fusion": {}, "fusion_audio": {"model__fusion": "audio"}, "fusion_visual": {"model__fusion": "visual"}}
    return stages + [
        _train(folder, name, f"configs/demo/fusion.py:{variant}", seed, data__features=output, **fields)
        for name, fields in alone.items()
    ]
