"""The whole system end to end on a small corpus: the ordinary commands, one after another, then the report.

Preparation runs as `python -m data_prep …` in processes of its own; the stages that need JAX run in this one. Every
stage is what a researcher runs on AffectNet, FEC and RECOLA, with smaller numbers; `demo.json` lists the commands.
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

from avemo import configuration, extract, report, runtime, train
from avemo.errors import UserError

logger = logging.getLogger(__name__)
ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command: its name, its arguments after `python`, and how it runs here."""

    name: str
    command: tuple[str, ...]
    run: Callable[[], Any]


def run(workdir: str, corpus: str = "synthetic", source: str | None = None, seed: int = 0) -> dict[str, Any]:
    """Runs every stage that is not complete yet, and writes `report.html`.

    Args:
      workdir: local folder for everything the demo makes.
      corpus: "synthetic" or "real".
      source: folder of the real corpora, for "real".
      seed: of the synthetic corpus and of every stage.

    Returns:
      Dev metrics by stage and the report's path.

    Raises:
      UserError: a stage's own error, a missing source, or a workdir of another demo.
    """
    folder = pathlib.Path(workdir)
    if corpus == "real" and not (source and pathlib.Path(source).is_dir()):
        raise UserError(f"--corpus=real needs the corpora: --source={source or 'DIR'} is not a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to --workdir={workdir}: {error.strerror}.") from error
    runtime.cache_compilations(folder)
    notes = _notes(folder, corpus, source, seed)
    stages = _synthetic(folder, seed) if corpus == "synthetic" else _real(folder, pathlib.Path(source), seed)
    results: dict[str, Any] = {}
    for number, stage in enumerate(stages, 1):
        before = notes["stages"].get(stage.name, {})
        command = " ".join(("python", *stage.command))
        logger.info("[%d/%d] %s: %s", number, len(stages), stage.name, command)
        began = time.time()
        # Preparation that was completed by this very command is not started again; trained stages check themselves.
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
        train.write_atomically(folder / "demo.json", json.dumps(notes, indent=2) + "\n")
    path = report.write(folder)
    logger.info("report: %s", path)
    return {"dev": results, "report": str(path)}


def _notes(folder: pathlib.Path, corpus: str, source: str | None, seed: int) -> dict[str, Any]:
    path = folder / "demo.json"
    if not path.exists():
        return {"corpus": corpus, "source": source, "seed": seed, "stages": {}}
    notes = json.loads(path.read_text())
    for name, value in (("corpus", corpus), ("source", source), ("seed", seed)):
        if notes.get(name) != value:
            raise UserError(f"{folder} holds a demo with --{name}={notes.get(name)}: choose another --workdir.")
    return notes


def _prepare(name: str, *arguments: str) -> Stage:
    """A stage of `data_prep`, run as a process of its own; its one error line is passed on."""

    def call() -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        process = subprocess.Popen([sys.executable, *arguments], env=environment, stderr=subprocess.PIPE)
        message = ""
        # Passed on as it comes, for the progress bar; but the error line is ours to print, once.
        for line in iter(process.stderr.readline, b""):
            if line.startswith(b"error: "):
                message = line.decode().strip().removeprefix("error: ")
            else:
                sys.stderr.write(line.decode(errors="replace"))
        if process.wait():
            raise UserError(message or f"stage {name} failed with status {process.returncode}, see above.")

    return Stage(name, arguments, call)


def _train(folder: pathlib.Path, name: str, config: str, seed: int, **fields: Any) -> Stage:
    """A training stage; `fields` are overrides with `__` for dots."""
    overrides = [f"--config.{key.replace('__', '.')}={value}" for key, value in {**fields, "seed": seed}.items()]
    workdir = folder / name
    command = ("launch.py", "train", f"--config={config}", f"--workdir={workdir}", *overrides)
    path, _, variant = config.partition(":")
    return Stage(
        name,
        command,
        lambda: train.train_and_evaluate(configuration.load(f"{ROOT / path}:{variant}", overrides), str(workdir)),
    )


def _extract(folder: pathlib.Path, clips: pathlib.Path) -> Stage:
    runs = (str(folder / "student"), str(folder / "audio"))
    output = str(folder / "features")
    command = ("launch.py", "extract", f"--workdir={','.join(runs)}", f"--data={clips}", f"--output={output}")
    return Stage("extract", command, lambda: extract.extract(runs, str(clips), output))


def _fusions(folder: pathlib.Path, variant: str, seed: int) -> list[Stage]:
    """Both modalities, and each alone under the same recipe."""
    return [
        _train(folder, name, f"configs/demo/fusion.py:{variant}", seed, data__features=folder / "features", **fields)
        for name, fields in (
            ("fusion", {}),
            ("fusion_audio", {"model__fusion": "audio"}),
            ("fusion_visual", {"model__fusion": "visual"}),
        )
    ]


def _synthetic(folder: pathlib.Path, seed: int) -> list[Stage]:
    corpus, data = folder / "corpus", folder / "data"
    cores = os.cpu_count() or 1

    def prepare(name: str, source: str, *extra: str) -> Stage:
        return _prepare(
            f"prepare_{name}",
            "-m",
            "data_prep",
            name,
            f"--source={corpus / source}",
            f"--output={data}",
            f"--workers={cores}",
            *extra,
        )

    return [
        _prepare("corpus", "-m", "data_prep.synthetic", f"--output={corpus}", f"--seed={seed}", f"--workers={cores}"),
        prepare("affectnet", "affectnet"),
        prepare("fec", "fec"),
        prepare("unlabelled", "unlabelled"),
        prepare("recola", "recola"),
        _train(
            folder,
            "teacher",
            "configs/demo/teacher.py:synthetic",
            seed,
            data__faces=data / "affectnet",
            data__triplets=data / "fec",
        ),
        _train(
            folder,
            "student",
            "configs/demo/student.py:synthetic",
            seed,
            teacher=folder / "teacher",
            data__faces=data / "affectnet",
            data__triplets=data / "fec",
            data__unlabelled=data / "unlabelled",
        ),
        _train(folder, "audio", "configs/demo/audio.py:synthetic", seed, data__clips=data / "recola"),
        _extract(folder, data / "recola"),
        *_fusions(folder, "synthetic", seed),
    ]


def _real(folder: pathlib.Path, source: pathlib.Path, seed: int) -> list[Stage]:
    data = folder / "data"
    cores = os.cpu_count() or 1
    models = sorted((source / "weights").glob("*yunet*.onnx"))
    detector = ("--detector=yunet", f"--detector_model={models[0]}") if models else ()

    def prepare(name: str, corpus: str, path: str, *extra: str) -> Stage:
        return _prepare(
            f"prepare_{name}",
            "-m",
            "data_prep",
            corpus,
            f"--source={source / path}",
            f"--output={data / name}",
            f"--workers={cores}",
            *extra,
        )

    return [
        prepare("fer", "fer", "ferplus"),
        prepare("fer_triplets", "fer_triplets", "ferplus"),
        prepare("unlabelled", "unlabelled", "grid", *detector),
        prepare("speech", "ravdess", "ravdess_speech", "--modality=audio"),
        prepare("takes", "ravdess", "ravdess_takes", *detector),
        _train(
            folder,
            "teacher",
            "configs/demo/teacher.py:real",
            seed,
            data__faces=data / "fer",
            data__triplets=data / "fer_triplets",
        ),
        _train(
            folder,
            "student",
            "configs/demo/student.py:real",
            seed,
            teacher=folder / "teacher",
            data__faces=data / "fer",
            data__triplets=data / "fer_triplets",
            data__unlabelled=data / "unlabelled",
        ),
        _train(folder, "audio", "configs/demo/audio.py:real", seed, data__clips=data / "speech"),
        _extract(folder, data / "takes"),
        *_fusions(folder, "real", seed),
    ]
