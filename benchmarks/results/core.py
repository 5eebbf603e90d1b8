"""Steps, rows, and the loop that makes them: every step is a command that anyone could type, done once.

A row needs steps, one after another, and then reads what they left. Steps are remembered in `steps.json` with their
command and seconds: one whose command has not changed is not run again, one that was killed is (training goes on from
its checkpoint). Rows write `rows/NAME.json`, from which alone the document is made.
"""

import dataclasses
import json
import logging
import os
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from avemo.metrics import significance
from media.errors import UserError
from media.files import write_atomically

logger = logging.getLogger(__name__)
ROOT = pathlib.Path(__file__).resolve().parents[2]
RESAMPLES = 9999
SEEDS = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where things lie.

    Attributes:
      source: folder of the corpora and weights as they were had (`ferplus/`, `ravdess_speech/`, `weights/`, …).
      work: folder for everything that is made.
      peers: a Python with requirements-peers*.txt, for programs that are not ours.
    """

    source: pathlib.Path
    work: pathlib.Path
    peers: str

    def data(self, name: str) -> pathlib.Path:
        """A prepared corpus."""
        return self.work / "data" / name

    def run(self, name: str) -> pathlib.Path:
        """A run folder."""
        return self.work / "runs" / name

    def weights(self, name: str) -> pathlib.Path:
        """Converted published weights."""
        return self.work / "weights" / name

    def peer(self, name: str) -> pathlib.Path:
        """What a peer said, `.npz`."""
        return self.work / "peers" / f"{name}.npz"

    def yunet(self) -> tuple[str, ...]:
        """Flags that choose YuNet where its file is there."""
        models = sorted((self.source / "weights").glob("*yunet*.onnx"))
        return ("--detector=yunet", f"--detector_model={models[0]}") if models else ()

    def said(self, name: str) -> pathlib.Path:
        """Folder of the predictions that `launch.py evaluate` wrote of a run on some data."""
        return self.work / "said" / name

    def result(self, name: str) -> dict[str, Any]:
        """`result.json` of a run."""
        return json.loads((self.run(name) / "result.json").read_text())

    def predictions(self, name: str, split: str) -> dict[str, np.ndarray]:
        """Saved predictions of a run on a split."""
        return load(self.run(name) / "predictions" / f"{split}.npz")


@dataclasses.dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
      name: unique; `step NAME` in the log.
      arguments: what follows `python`.
      peer: run by the peers' Python, not by ours.
    """

    name: str
    arguments: tuple[str, ...]
    peer: bool = False

    def command(self) -> str:
        """The line to type in the root of the repository."""
        python = ".venv-peers/bin/python" if self.peer else "python"
        return " ".join((python, *(shlex.quote(a) for a in self.arguments)))


# What the document says in place of the folders of the machine that made it; the defaults of the command line.
SOURCE, WORK = pathlib.Path("../shared/data"), pathlib.Path("runs/results")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table of results.

    Attributes:
      name: what the command line and `rows/NAME.json` call it.
      title: what it says in the document.
      protocol: data and split, in words.
      steps: what has to be there, in order, for a place.
      measure: reads what the steps left; returns the JSON value of the row (see `score`, `difference`, `check`).
    """

    name: str
    title: str
    protocol: str
    steps: Callable[[Place], Sequence[Step]]
    measure: Callable[[Place], dict[str, Any]]


def prepare(place: Place, corpus: str, folder: str | pathlib.Path, name: str, *flags: str) -> Step:
    """The step that prepares `source/folder` as the corpus `name`."""
    source = place.source / folder
    arguments = (f"--source={source}", f"--output={place.work / 'data'}", f"--name={name}", "--workers=2", *flags)
    return Step(f"data/{name}", ("-m", "data_prep", corpus, *arguments))


def train(place: Place, name: str, config: str, *overrides: str) -> Step:
    """The step that trains `runs/name`."""
    fields = tuple(f"--config.{override}" for override in overrides)
    return Step(f"runs/{name}", ("launch.py", "train", f"--config={config}", f"--workdir={place.run(name)}", *fields))


def evaluate(place: Place, run: str, data: str, split: str, *flags: str, suffix: str = "") -> Step:
    """The step that scores `runs/RUN` on a split of a prepared corpus; predictions in `said/RUN_DATA…/SPLIT.npz`."""
    name = f"{run}_{data}{suffix}"
    arguments = (f"--workdir={place.run(run)}", f"--data={place.data(data)}", f"--split={split}", *flags)
    return Step(f"said/{name}", ("launch.py", "evaluate", *arguments, f"--output={place.said(name)}"))


def pretrained(place: Place, network: str, file: str, name: str, *flags: str) -> Step:
    """The step that converts published weights."""
    arguments = (network, f"--file={place.source / 'weights' / file}", f"--output={place.weights(name)}", *flags)
    return Step(f"weights/{name}", ("-m", "avemo.models.pretrained", *arguments))


def score(system: str, found: significance.Score, *, ours: bool = False, **more: Any) -> dict[str, Any]:
    """A system's score with its 95 % interval over the units of `found` (mean over its seeds)."""
    low, high = significance.bootstrap(found, resamples=RESAMPLES)
    return {"system": system, "value": found.mean(), "low": low, "high": high, "ours": ours, **more}


def difference(first: str, second: str, a: significance.Score, b: significance.Score) -> dict[str, Any]:
    """`first − second` on the same units, with interval and p-value (paired)."""
    found = significance.compare(a, b, resamples=RESAMPLES)
    return {
        "first": first,
        "second": second,
        "value": found.difference,
        "low": found.low,
        "high": found.high,
        "p": found.p,
    }


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file.

    Raises:
      UserError: it is not there, though the steps before have ended well: a sweep goes on after a cell that failed.
    """
    if not path.exists():
        raise UserError(f"{path} was not written: its step's log in logs/ says why; run the row again.")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def peer(path: pathlib.Path, names: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """What a peer said, in our order of the same files.

    Args:
      path: an `.npz` whose `name`, `label` and `probability_*` have one entry a file.
      names, labels: ours, `[N]`.

    Raises:
      UserError: it was run on other files, or by other labels.
    """
    theirs = load(path)
    places = {str(name): place for place, name in enumerate(theirs["name"])}
    if sorted(places) != sorted(map(str, names)):
        raise UserError(f"{path} is not of the same files as ours: delete it and run the row again.")
    order = [places[str(name)] for name in names]
    if (theirs["label"][order] != labels).any():
        raise UserError(f"{path} has other labels than ours: delete it and run the row again.")
    said = {key: value[order] for key, value in theirs.items() if key.startswith("probability_")}
    return {**theirs, **said, "name": theirs["name"][order], "label": theirs["label"][order]}


def check(what: str, met: bool) -> dict[str, Any]:
    """Whether something that was set out to be reached was."""
    return {"what": what, "met": bool(met)}


class Steps:
    """What was run in a place, and running what was not."""

    def __init__(self, place: Place):
        self.place, self.path = place, place.work / "steps.json"
        self.done = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def run(self, step: Step) -> None:
        """Runs a step unless this very command has been run to its end.

        Raises:
          UserError: it failed; its log is named.
        """
        command = step.command()
        before = self.done.get(step.name, {})
        if before.get("command") == command and before.get("complete"):
            return
        logger.info("%s: %s", step.name, command)
        log = self.place.work / "logs" / f"{step.name.replace('/', '_')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        # Seconds of attempts that were cut short count too.
        spent = before.get("seconds", 0.0) if before.get("command") == command else 0.0
        entry = {"command": command, "seconds": spent, "complete": False}
        self._remember(step.name, entry)
        began = time.time()
        # Runs of one shape (folds, seeds) share what the first of them compiled.
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(self.place.work.resolve() / "compilation_cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
        }
        environment = {**cache, **os.environ, "PYTHONPATH": str(ROOT)}
        try:
            with log.open("ab") as file:
                python = self.place.peers if step.peer else sys.executable
                status = subprocess.call([python, *step.arguments], cwd=ROOT, env=environment, stdout=file, stderr=file)
        finally:
            entry["seconds"] = round(spent + time.time() - began, 1)
            self._remember(step.name, entry)
        if status:
            tail = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise UserError(f"step {step.name} ended with status {status}: {' '.join(tail)} (all of it: {log}).")
        self._remember(step.name, {**entry, "complete": True})

    def _remember(self, name: str, entry: dict[str, Any]) -> None:
        # Rows may be made at the same time in one place: what the others have done stays.
        self.done = {**self._read(), name: dict(entry)}
        write_atomically(self.path, json.dumps(self.done, indent=2) + "\n")


def make(place: Place, rows: Sequence[Row]) -> list[str]:
    """Makes rows: their steps, then their JSON. A row that fails is named, and the others go on.

    Returns:
      One message for each row that failed.
    """
    place.work.mkdir(parents=True, exist_ok=True)
    steps, failures = Steps(place), []
    for row in rows:
        try:
            needed = list(row.steps(place))
            for step in needed:
                steps.run(step)
            value = row.measure(place)
        except UserError as error:
            failures.append(f"{row.name}: {error}")
            logger.error("%s", failures[-1])
            continue
        value |= {
            "row": row.name,
            "steps": [{"name": s.name, "command": _portable(place, s), "seconds": _seconds(steps, s)} for s in needed],
        }
        path = place.work / "rows" / f"{row.name}.json"
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(value, indent=2, default=float) + "\n")
        logger.info("%s: written", path)
    return failures


def _portable(place: Place, step: Step) -> str:
    """The command with the default folders."""
    return step.command().replace(str(place.work), str(WORK)).replace(str(place.source), str(SOURCE))


def _seconds(steps: Steps, step: Step) -> float:
    """What a step took; a training says itself what all its parts took, also those that this loop did not start."""
    if step.name.startswith("runs/"):
        return steps.place.result(step.name.removeprefix("runs/"))["seconds"]
    return steps.done[step.name]["seconds"]
