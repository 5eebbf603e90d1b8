"""The whole system end to end on a small corpus: the ordinary commands in order, then the report.

Preparation runs as separate processes, `python -m data_prep …`; the stages that need JAX run in this process, on a CPU
two at a time. Every stage is what a researcher runs on AffectNet, FEC and RECOLA, with smaller numbers. `demo.json`
lists the commands.
"""

import json
import logging
import os
import pathlib
import threading
import time
from typing import Any

from avemo import configuration, report
from avemo.cli.stages import Stage, Stop, at_once, run_all, run_process
from avemo.evaluation import extract
from avemo.runs import compilation_cache
from avemo.training import train
from media.errors import UserError
from media.files import read_json, write_atomically

logger = logging.getLogger(__name__)
ROOT = pathlib.Path(__file__).resolve().parents[2]


# A corpus that is made and read in seconds, for one step of every stage.
SMOKE_CORPUS = (
    *("--recordings=2,1,1", "--seconds=12", "--size=120", "--faces=32,16", "--face-size=112"),
    *("--triplets=16,16", "--pool=48,48", "--unlabelled=16"),
)


def run(
    workdir: str, corpus: str = "synthetic", source: str | None = None, seed: int = 0, smoke: bool = False
) -> dict[str, Any]:
    """Runs every stage that is not complete yet and writes `report.html`.

    Args:
      workdir: local folder for everything that the demo makes.
      corpus: "synthetic" or "real".
      source: folder of the real corpora, needed for "real".
      seed: of the synthetic corpus and of every stage.
      smoke: one step of every stage, on a synthetic corpus of four short recordings: does everything run?

    Returns:
      Dev metrics by stage, and the report's path.

    Raises:
      UserError: a stage fails, the source is missing, or the workdir belongs to another demo.
    """
    folder = pathlib.Path(workdir)
    if smoke and corpus != "synthetic":
        raise UserError(f"--smoke is for the synthetic corpus: leave out --corpus={corpus}.")
    if corpus == "real" and not (source and pathlib.Path(source).is_dir()):
        raise UserError(f"--corpus=real needs the corpora: --source={source or 'DIR'} is not a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to --workdir={workdir}: {error.strerror}.") from error
    compilation_cache.keep()
    notes = _notes(folder, corpus, source, seed, smoke)
    stages = _real(folder, pathlib.Path(source or ""), seed) if corpus == "real" else _synthetic(folder, seed, smoke)
    results: dict[str, Any] = {}
    numbers = {stage.name: number for number, stage in enumerate(stages, 1)}
    writing = threading.Lock()

    def run_one(stage: Stage, stop: Stop) -> None:
        before = notes["stages"].get(stage.name, {})
        command = " ".join(("python", *stage.command))
        logger.info("[%d/%d] %s: %s", numbers[stage.name], len(stages), stage.name, command)
        began = time.time()
        # Preparation completed by the same command is skipped; training stages check this themselves.
        if not (stage.command[0] == "-m" and before.get("command") == command):
            out = stage.run(stop)
            if isinstance(out, dict) and "metrics" in out:
                results[stage.name] = out["metrics"].get("dev", {})
                scores = ", ".join(f"{k} {v:.3f}" for k, v in results[stage.name].items() if isinstance(v, float))
                logger.info("        %s, dev: %s", stage.name, scores)
        seconds = round(time.time() - began, 1)
        entry = {"command": command, "seconds": before.get("seconds", seconds), "skipped": bool(before)}
        with writing:
            notes["stages"][stage.name] = entry
            notes["stages"] = {name: notes["stages"][name] for name in numbers if name in notes["stages"]}
            write_atomically(folder / "demo.json", json.dumps(notes, indent=2) + "\n")

    run_all(stages, run_one, at_once())
    path = report.write(folder)
    logger.info("report: %s", path)
    return {"dev": {name: results[name] for name in numbers if name in results}, "report": str(path)}


def _notes(folder: pathlib.Path, corpus: str, source: str | None, seed: int, smoke: bool) -> dict[str, Any]:
    path = folder / "demo.json"
    wanted = {"corpus": corpus, "source": source, "seed": seed, "smoke": smoke}
    if not path.exists():
        return {**wanted, "stages": {}}
    notes = {"smoke": False, **read_json(path)}
    for name, value in wanted.items():
        if notes.get(name) != value:
            raise UserError(f"{folder} has a demo with --{name}={notes.get(name)}: choose another --workdir.")
    return notes


def _prepare(name: str, *arguments: str, after: tuple[str, ...] = ()) -> Stage:
    """A stage of `data_prep`, run as a separate process."""

    def call(stop: Stop) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        run_process(name, arguments, environment, stop)

    return Stage(name, arguments, call, after)


def _train(folder: pathlib.Path, name: str, config: str, seed: int, after: tuple[str, ...], **fields: Any) -> Stage:
    """A training stage. `fields` are overrides, with `__` in place of dots."""
    overrides = [f"--config.{key.replace('__', '.')}={value}" for key, value in {**fields, "seed": seed}.items()]
    workdir = folder / name
    command = ("launch.py", "train", f"--config={config}", f"--workdir={workdir}", *overrides)
    path, _, variant = config.partition(":")

    def call(stop: Stop) -> dict[str, Any]:
        return train.train_and_evaluate(configuration.load(f"{ROOT / path}:{variant}", overrides), workdir, stop=stop)

    return Stage(name, command, call, after)


def _synthetic(folder: pathlib.Path, seed: int, smoke: bool) -> list[Stage]:
    corpus, data = folder / "corpus", folder / "data"
    workers = f"--workers={os.cpu_count() or 1}"
    made = ("corpus",)
    teacher, *others = _training(
        folder,
        "smoke" if smoke else "synthetic",
        seed,
        faces=data / "affectnet",
        triplets=data / "fec",
        sound=data / "clips",
    )
    # The longest chain first: faces, teacher, student.
    return [
        _prepare(
            *("corpus", "-m", "data_prep.synthetic", f"--output={corpus}", f"--seed={seed}", workers),
            *(SMOKE_CORPUS if smoke else ()),
        ),
        _shards("affectnet", corpus / "affectnet", data, "affectnet", after=made),
        _shards("fec", corpus / "fec", data, "fec", after=made),
        teacher,
        _shards("unlabelled", corpus / "unlabelled", data, "unlabelled", after=made),
        _shards("recola", corpus / "recola", data, "clips", after=made),
        *others,
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


def _shards(
    corpus: str, source: pathlib.Path, output: pathlib.Path, name: str, *extra: str, after: tuple[str, ...] = ()
) -> Stage:
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
        after=after,
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
    prepared = tuple(f"prepare_{path.name}" for path in (faces, triplets))
    stages = [
        _train(folder, "teacher", f"configs/demo/teacher.py:{variant}", seed, prepared, **stills),
        _train(
            folder, "student", f"configs/demo/student.py:{variant}", seed, ("teacher", "prepare_unlabelled"), **student
        ),
        _train(
            folder, "audio", f"configs/demo/audio.py:{variant}", seed, (f"prepare_{sound.name}",), data__clips=sound
        ),
        Stage(
            "extract", command, lambda stop: extract.extract(runs, clips, output), ("student", "audio", "prepare_clips")
        ),
    ]
    alone = {"fusion": {}, "fusion_audio": {"model__fusion": "audio"}, "fusion_visual": {"model__fusion": "visual"}}
    return stages + [
        _train(folder, name, f"configs/demo/fusion.py:{variant}", seed, ("extract",), data__features=output, **fields)
        for name, fields in alone.items()
    ]
