"""`python -m benchmarks.feed [TASK …] [--device]`: whether the input keeps the device busy.

For each task, and each way in which its data can reach the device, it prints examples/s of the step alone (one batch
that lies on the device), of the input alone (no step), and of `launch.py train` itself, by its own log; and the fed
share, which is the last over the first. The same for PyTorch with a DataLoader of as many workers on the same files,
unless PyTorch is missing. `workers` as a task prints how decoding scales with processes, `decoders` how long ways to
decode a face take, `augmentation` what it adds to the teacher's step.

Without `--device` the networks are tiny, so that their step is short and the input shows on a CPU too. With it they are
the paper's, in bfloat16, on the accelerator.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from benchmarks.feed import data, decoders, scaling, settings

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = pathlib.Path(os.environ.get("AVEMO_DATA", ROOT.parent / "shared" / "data"))


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where things are, and how much is measured.

    Attributes:
      folders: data folders by kind.
      work: a folder for runs.
      seconds: about how long a run trains.
      device: whether the networks are the paper's.
      workers: processes that decode.
    """

    folders: dict[str, str]
    work: pathlib.Path
    seconds: float
    device: bool
    workers: int

    def ours(self, task: str, source: str) -> dict[str, float | None]:
        """Step alone, input alone, and training, with its idle share."""
        case = settings.Case(task, source, self.workers, not self.device)
        step, drawn = (
            json.loads(_run("-m", "benchmarks.feed.measure", what, case.config, *self._overrides(case, 1000)))
            for what in ("step", "input")
        )
        steps = max(50, round(self.seconds * min(step["rate"], drawn["rate"]) / step["examples"]))
        run = pathlib.Path(tempfile.mkdtemp(dir=self.work)) / "run"
        _train(case.config, run, self._overrides(case, steps))
        return {"step": step["rate"], "input": drawn["rate"], **timing(run / "metrics.jsonl")}

    def theirs(self, task: str) -> dict[str, float | None]:
        """The same of PyTorch."""
        given = {"task": task, "files": self.folders["files"], "tiny": not self.device, "workers": self.workers}
        arguments = json.dumps({**given, "bfloat16": self.device and task != "student"})
        kinds = ("step", "input", "train")
        return {what: float(_run("-m", "benchmarks.feed.peers", what, arguments)) for what in kinds}

    def step(self, augment: Mapping[str, object]) -> float:
        """Faces per second of the paper's teacher with an augmentation; on a CPU in a small batch."""
        case = settings.Case("teacher", "resident", self.workers, tiny=False)
        fields: dict[str, object] = {f"data.augment.{name}": value for name, value in augment.items()}
        if not self.device:
            fields |= {"data.batch.faces": 8, "data.batch.triplets": 8}
        overrides = [*self._overrides(case, 1000), *(f"--config.{name}={value}" for name, value in fields.items())]
        return float(json.loads(_run("-m", "benchmarks.feed.measure", "step", case.config, *overrides))["rate"])

    def prepare(self, task: str) -> None:
        """Trains for one step the runs that a task starts from."""
        if task == "student":
            self._once("teacher")
        if task == "end_to_end":
            for before in ("teacher", "student", "audio"):
                self._once(before)
            features = self.work / "features"
            if not features.exists():
                runs = f"{self.work / 'student'},{self.work / 'audio'}"
                data = self.folders["clips"]
                _run("launch.py", "extract", f"--workdir={runs}", f"--data={data}", f"--output={features}")
            self._once("fusion", f"--config.data.features={features}")

    def _once(self, task: str, *more: str) -> None:
        run = self.work / task
        if not (run / "result.json").exists():
            case = settings.Case(task, settings.inputs(task)[0], self.workers, not self.device)
            _train(case.config, run, [*self._overrides(case, 1), *more])

    def _overrides(self, case: settings.Case, steps: int) -> list[str]:
        return case.overrides(self.folders, str(self.work), steps)


def _train(config: str, run: pathlib.Path, overrides: list[str]) -> None:
    _run("launch.py", "train", f"--config={config}", f"--workdir={run}", *overrides)


def timing(log: pathlib.Path) -> dict[str, float | None]:
    """`train` examples/s and `idle` of a run: the median of its log, without the first interval, which compiles."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    laps = [line for line in lines if line["split"] == "timing"][1:]
    middle = sorted(laps, key=lambda lap: lap["examples_per_second"])[len(laps) // 2]
    return {"train": middle["examples_per_second"], **{k: middle.get(k) for k in ("idle", "idle_input", "mfu")}}


def _run(*arguments: str) -> str:
    """Runs Python; returns the last line that it prints."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}\nfailed:\n{done.stderr[-3000:]}")
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def line(task: str, source: str, found: dict[str, float | None], best: float | None = None) -> str:
    """One line of the table."""

    def number(name: str, form: str = ",.0f") -> str:
        value = found.get(name)
        return "-" if value is None else format(value, form)

    fed = (found["train"] or 0) / (found["step"] or 1)
    ratio = "-" if best is None else f"{(found['train'] or 0) / best:.2f}x"
    cells = (task, source, *map(number, ("step", "input", "train")), f"{fed:.2f}", number("idle", ".2f"), ratio)
    return f"| {' | '.join(cells)} |"


def main(argv: list[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feed", description=(__doc__ or "").split("\n\n")[1])
    known = (*settings.TASKS, "workers", "decoders", "augmentation")
    default = ("teacher", "student", "audio", "fusion", "workers")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"{', '.join(known)} (default: all but end_to_end)")
    parser.add_argument("--device", action="store_true", help="the paper's networks, on the accelerator")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that decode (default: cores)")
    parser.add_argument("--seconds", type=float, default=15, help="about how long each run trains (default: 15)")
    parser.add_argument("--faces", type=int, default=16384, help="faces in the data (default: 16,384)")
    parser.add_argument(
        "--source", type=pathlib.Path, default=SOURCE, help="folder with ferplus/ (default: AVEMO_DATA)"
    )
    parser.add_argument("--work", type=pathlib.Path, help="folder for data and runs (default: a temporary one)")
    arguments = parser.parse_args(argv)
    tasks = arguments.tasks or default
    if unknown := set(tasks) - set(known):
        parser.error(f"no task {', '.join(sorted(unknown))}; tasks are {', '.join(known)}")
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or pathlib.Path(temporary)).absolute()
        folders = data.write(arguments.source, work / "data", arguments.faces, clips=64)
        bench = Bench(folders, work, arguments.seconds, arguments.device, arguments.workers)
        print(_run("-c", "from avemo.ops import hardware; print('on', hardware.summary())"))
        named = [task for task in tasks if task in settings.TASKS]
        if named:
            _table(bench, named)
        if "workers" in tasks:
            print(scaling.table(folders["faces"], arguments.workers), flush=True)
        if "decoders" in tasks:
            faces = sorted((pathlib.Path(folders["files"]) / "faces").iterdir())
            print(decoders.table([path.read_bytes() for path in faces[:256]]))
        if "augmentation" in tasks:
            print(augmentation(bench))
    return 0


AUGMENTATIONS: dict[str, dict[str, object]] = {
    "none": {"crop": 0.0, "flip": False, "colour": 0.0},
    "the teacher's": {},
    "the noisy student's": {"operations": 2, "magnitude": 0.5, "erase": 0.25},
}


def augmentation(bench: Bench) -> str:
    """What augmentation adds to the time of the teacher's step."""
    rates = {name: bench.step(fields) for name, fields in AUGMENTATIONS.items()}
    rows = [f"| {name} | {rate:,.1f} | {rates['none'] / rate - 1:+.1%} |" for name, rate in rates.items()]
    return "\n".join(["", "| augmentation | faces/s of the step | time |", "|---|---|---|", *rows])


def _table(bench: Bench, tasks: list[str]) -> None:
    torch = importlib.util.find_spec("torch") is not None
    if not torch:
        print("PyTorch is not installed: its rows are left out.")
    print("\n| task | data | step alone /s | input alone /s | train /s | fed share | idle | over PyTorch |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for task in tasks:
        bench.prepare(task)
        peer = bench.theirs(task) if torch and task != "end_to_end" else None
        for source in settings.inputs(task):
            print(line(task, source, bench.ours(task, source), peer["train"] if peer else None), flush=True)
        if peer:
            print(line(task, "PyTorch DataLoader", peer), flush=True)


if __name__ == "__main__":
    sys.exit(main())
