"""The steps behind docs/results.md: each is a command that anyone can type, and runs once.

`steps.json` remembers each step with its command and seconds. A step is run again only if its command has changed, or
if it was killed; training then resumes from its checkpoint.
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
from typing import Any

import numpy as np

from benchmarks.results import measures
from media.errors import UserError
from media.files import write_atomically

logger = logging.getLogger(__name__)
ROOT = pathlib.Path(__file__).resolve().parents[2]
SEEDS = (0, 1, 2)
# The command line's default folders; the document names them instead of the folders of the machine that made it.
SOURCE, WORK = pathlib.Path("../shared/data"), pathlib.Path("runs/results")


@dataclasses.dataclass(frozen=True)
class Place:
    """The folders.

    Attributes:
      source: the corpora and weights as they were obtained (`ferplus/`, `ravdess_speech/`, `weights/`, …).
      work: everything that is made.
      peers: a Python with requirements-peers*.txt installed, for other people's programs.
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
        """A peer's predictions, `.npz`."""
        return self.work / "peers" / f"{name}.npz"

    def yunet(self) -> tuple[str, ...]:
        """Flags that choose YuNet if its file exists."""
        models = sorted((self.source / "weights").glob("*yunet*.onnx"))
        return ("--detector=yunet", f"--detector_model={models[0]}") if models else ()

    def said(self, name: str) -> pathlib.Path:
        """Folder of the predictions that `launch.py evaluate` wrote for a run on other data."""
        return self.work / "said" / name

    def result(self, name: str) -> dict[str, Any]:
        """`result.json` of a run."""
        return json.loads((self.run(name) / "result.json").read_text())

    def portable(self, step: "Step") -> str:
        """A step's command with the default folders in place of these."""
        return step.command().replace(str(self.work), str(WORK)).replace(str(self.source), str(SOURCE))

    def predictions(self, name: str, split: str) -> dict[str, np.ndarray]:
        """Saved predictions of a run on a split."""
        return measures.load(self.run(name) / "predictions" / f"{split}.npz")


@dataclasses.dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
      name: unique; the log calls it `step NAME`.
      arguments: the command line after `python`.
      peer: whether the peers' Python runs it instead of ours.
    """

    name: str
    arguments: tuple[str, ...]
    peer: bool = False

    def command(self) -> str:
        """The command line, to be typed in the root of the repository."""
        python = ".venv-peers/bin/python" if self.peer else "python"
        return " ".join((python, *(shlex.quote(a) for a in self.arguments)))


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
    """The step that scores `runs/RUN` on a split of a prepared corpus; predictions go to `said/RUN_DATA…/SPLIT.npz`."""
    name = f"{run}_{data}{suffix}"
    arguments = (f"--workdir={place.run(run)}", f"--data={place.data(data)}", f"--split={split}", *flags)
    return Step(f"said/{name}", ("launch.py", "evaluate", *arguments, f"--output={place.said(name)}"))


def pretrained(place: Place, network: str, file: str, name: str, *flags: str) -> Step:
    """The step that converts published weights."""
    arguments = (network, f"--file={place.source / 'weights' / file}", f"--output={place.weights(name)}", *flags)
    return Step(f"weights/{name}", ("-m", "avemo.models.pretrained", *arguments))


class StepRunner:
    """Runs the steps that have not been run in a place, and remembers them."""

    def __init__(self, place: Place):
        self.place, self.path = place, place.work / "steps.json"
        self.done = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def run(self, step: Step) -> None:
        """Runs a step unless the same command has finished before.

        Raises:
          UserError: the step failed; the message names its log.
        """
        command = step.command()
        before = self.done.get(step.name, {})
        if before.get("command") == command and before.get("complete"):
            return
        logger.info("%s: %s", step.name, command)
        log = self.place.work / "logs" / f"{step.name.replace('/', '_')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        # Attempts that were cut short count too.
        spent = before.get("seconds", 0.0) if before.get("command") == command else 0.0
        entry = {"command": command, "seconds": spent, "complete": False}
        self._remember(step.name, entry)
        began = time.time()
        # Runs of the same shapes (folds, seeds) share one compilation.
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
            raise UserError(f"step {step.name} ended with status {status}: {' '.join(tail)} (full log: {log}).")
        self._remember(step.name, {**entry, "complete": True})

    def _remember(self, name: str, entry: dict[str, Any]) -> None:
        # Several processes may make rows in one place, so keep what the others have written.
        self.done = {**self._read(), name: dict(entry)}
        write_atomically(self.path, json.dumps(self.done, indent=2) + "\n")
