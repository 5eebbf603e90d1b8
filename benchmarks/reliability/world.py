"""A small world to break: data sets, runs, a release, a recording; and commands run in it as processes of their own."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

from benchmarks import chaos

TRAIN = (
    "train",
    f"--config={chaos.ROOT}/configs/demo/audio.py:smoke",
    *("--config.steps=4", "--config.log_every=1", "--config.eval_every=2"),
    *chaos.SETTINGS["audio"],
)
SWEEP = """
from avemo.sweep import plan

def get_config(variant=""):
    common = {{"steps": 4, "log_every": 2, "eval_every": 2, "data.sequence_length": 20, "data.sequence_hop": 10,
              "data.delay": 0.08, "data.eval_batch": 8, "model.fusion_args.features": 8,
              "model.temporal_args.features": 8, "data.features": {features!r}}}
    return plan.Sweep(title="a sweep", experiment={experiment!r}, common=common, seeds=2,
                      settings=plan.grid({{"model.fusion": ("concat",)}}), reference="concat")
"""


_PROGRESS = ("on ", "input: ", "initialising ", "compiling ", "opened ", "Downloading and preparing dataset")


@dataclasses.dataclass(frozen=True)
class Done:
    """A command that has ended: its exit status (negative: the signal), what it printed, and how long it took."""

    status: int
    text: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        """The lines that it printed, without those that any call prints on its way."""
        return [line for line in self.text.splitlines() if line.strip() and not line.startswith(_PROGRESS)]

    def problem(self) -> str:
        """Says what is wrong if the command did not succeed; else ""."""
        return f"status {self.status}: {self.text[-300:]}" if self.status else ""

    def refusal(self, *words: str) -> str:
        """Says what is wrong if this is not status 2 with one line `error: …` that has all words; else ""."""
        if self.status == 2 and len(self.lines) == 1 and self.lines[0].startswith("error: "):
            missing = [word for word in words if word not in self.text]
            return f"{missing[0]!r} is not in: {self.text.strip()}" if missing else ""
        return f"status {self.status}, {len(self.lines)} lines, the last: {''.join(self.lines[-1:])[:300]}"


@dataclasses.dataclass(frozen=True)
class World:
    """Folders of whole things. Situations break copies of them.

    Attributes:
      folder: holds `clips`, `features`, `trained` (an audio run), `visual`, `audio`, `fusion` (tiny untrained runs),
        `a.mp4`, `a.zip` (a release), `sweep.py`.
      work: an empty folder of one situation.
    """

    folder: pathlib.Path
    work: pathlib.Path

    @property
    def clips(self) -> str:
        """The prepared clips."""
        return str(self.folder / "clips" / "1.0.0")

    def train(self, run: pathlib.Path) -> tuple[str, ...]:
        """The command that trains, or resumes, a copy of `trained`."""
        return (*TRAIN, f"--config.data.clips={self.clips}", f"--workdir={run}")

    def copy(self, name: str) -> pathlib.Path:
        """A copy of something whole, to be broken."""
        source, target = self.folder / name, self.work / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        return target

    def start(self, *arguments: str | os.PathLike) -> tuple[int, pathlib.Path]:
        """Starts a command of `launch.py`; returns the child's id and its log."""
        log = self.work / f"log{time.monotonic_ns()}"
        log.touch()
        return chaos.command([os.fspath(argument) for argument in arguments], log), log

    def run(self, *arguments: str | os.PathLike) -> Done:
        """Runs a command of `launch.py` to its end."""
        began = time.monotonic()
        child, log = self.start(*arguments)
        return self.done(child, log, began)

    def call(self, function: Callable[[], int]) -> Done:
        """Runs a function in a process of its own, which may touch devices."""
        began = time.monotonic()
        log = self.work / f"log{time.monotonic_ns()}"
        return self.done(chaos.fork(function, log), log, began)

    def done(self, child: int, log: pathlib.Path, began: float) -> Done:
        """Waits for a child."""
        status = chaos.wait(child, time.monotonic() + 400)
        text = log.read_text(errors="replace").strip()
        return Done(-signal.SIGKILL if status is None else status, text, time.monotonic() - began)

    def left(self, folder: pathlib.Path) -> list[str]:
        """The half-made things in a folder and below."""
        marks = (".partial-", ".install-", ".incomplete", "orbax-checkpoint-tmp")
        found = [path for path in folder.rglob("*") if any(mark in path.name for mark in marks)]
        return sorted(str(path.relative_to(folder)) for path in found)

    @contextlib.contextmanager
    def disk(self, size: str, fill: bool = False) -> Iterator[pathlib.Path]:
        """A small file system, which takes root to mount; with `fill` it is full already.

        Raises:
          PermissionError: this user cannot.
        """
        place = self.work / f"disk{time.monotonic_ns()}"
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
            raise PermissionError("mounting takes root")
        try:
            if fill:
                with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as file:
                    while file.write(bytes(4096)):
                        pass
            yield place
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def make(folder: pathlib.Path) -> None:
    """Makes everything whole."""

    def write() -> int:
        from helpers import films, sequences, tiny_runs, toy

        toy.clips(folder, train=8, dev=2, frames=20, segments=1)
        features = sequences.write_features(folder / "sequences")
        experiment = f"{chaos.ROOT}/configs/demo/fusion.py:smoke"
        (folder / "sweep.py").write_text(SWEEP.format(features=str(features), experiment=experiment))
        visual, audio = tiny_runs.visual(folder / "visual"), tiny_runs.audio(folder / "audio")
        tiny_runs.fusion(folder / "fusion", visual, audio, films.FACES)
        films.film(folder / "a.mp4", seconds=1.0, squares=[films.still()], sound=1.0)
        return 0

    log = folder / "make.log"
    chaos.check(chaos.fork(write, log), log)
    world = World(folder, folder)
    done = world.run(*world.train(folder / "trained"))
    if done.status:
        raise RuntimeError(done.text)

    def pack() -> int:
        from avemo.runs import archive

        names = ("visual", "audio", "fusion")
        files = {f"{n}/{f}": (folder / n / f).read_bytes() for n in names for f in ("config.json", "result.json")}
        files |= {f"{n}/weights.npz": _weights(folder / n) for n in names}
        card = (folder / "fusion" / "encoders.json").read_text()
        files["fusion/encoders.json"] = card.replace(f"{folder}/", "").encode()
        archive.write(folder / "a.zip", files, {"runs": {}})
        return 0

    chaos.check(chaos.fork(pack, log), log)


def _weights(run: pathlib.Path) -> bytes:
    from avemo.runs import checkpoints, weights

    _, step, variables = checkpoints.load(run)
    return weights.pack(step, variables)
