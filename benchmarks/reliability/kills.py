"""Commands stopped at random moments by SIGKILL, SIGTERM and Ctrl-C, and then run again."""

import itertools
import os
import pathlib
import shutil
import signal
import time
from collections.abc import Callable

import numpy as np

from benchmarks.reliability.world import World

COMMANDS: dict[str, Callable[[World, pathlib.Path], tuple[str, ...]]] = {
    "predict": lambda world, out: (
        *("predict", f"--workdir={world.folder / 'fusion'}", f"--input={world.folder / 'a.mp4'}", f"--output={out}"),
        "--files=csv,json,overlay",
    ),
    "extract": lambda world, out: (
        *("extract", f"--workdir={world.folder / 'visual'},{world.folder / 'audio'}", f"--data={world.clips}"),
        f"--output={out}",
    ),
    "export": lambda world, out: ("export", f"--workdir={world.folder / 'audio'}", f"--output={out}"),
    "install": lambda world, out: ("release", f"--install={world.folder / 'a.zip'}"),
}
_SAYS = {signal.SIGTERM: "terminated: ", signal.SIGINT: "interrupted: "}


def torment(name: str, world: World, kills: int, seed: int) -> tuple[int, str]:
    """Stops one command `kills` times, running it again after each; returns how often, and what went wrong."""
    rng = np.random.default_rng([seed, *name.encode()])
    out = world.work / "out"
    os.environ["AVEMO_CACHE"] = str(out)
    arguments = COMMANDS[name](world, out)
    began = time.monotonic()
    whole = world.run(*arguments)
    if whole.status:
        return 0, whole.text[-300:]
    life, expected = time.monotonic() - began, _names(out)
    for number, kind in zip(range(kills), itertools.cycle((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))):
        if number % 2:
            shutil.rmtree(out)  # else there is a whole one, which must stay or be replaced
        child, log = world.start(*arguments)
        time.sleep(rng.uniform(0, life))
        done, status = os.waitpid(child, os.WNOHANG)
        if not done:
            os.kill(child, kind)
            _, status = os.waitpid(child, 0)
        text, code = log.read_text(), os.waitstatus_to_exitcode(status)
        if not number % 2 and not _names(out) >= expected:
            return number, f"{name}: after signal {kind} something whole is gone: {sorted(expected - _names(out))[:3]}"
        if kind in _SAYS and code not in (0, -kind):
            if _SAYS[kind] not in text or code != 128 + kind or "Traceback" in text:
                return number, f"{name}: after signal {kind} status {code}: {text[-200:]}"
            if out.exists() and world.left(out):
                return number, f"{name}: after signal {kind} there is {world.left(out)}"
        again = world.run(*arguments)
        if again.status or _names(out) != expected:
            return number, f"{name}: run again after signal {kind}: {again.text[-200:]} {_names(out) ^ expected}"
    return kills, ""


def _names(folder: pathlib.Path) -> set[str]:
    """The files that others see; paths in a run's caches and logs left aside."""
    found = (path for path in folder.rglob("*") if path.is_file()) if folder.exists() else ()
    return {str(path.relative_to(folder)) for path in found if ".compiled" not in path.parts}


def child_of_the_demo(world: World) -> str:
    """Kills the demo while its preparation runs; says what went wrong."""
    child, _ = world.start("demo", f"--workdir={world.work / 'demo'}")
    deadline = time.monotonic() + 60
    while not (below := _children(child)) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    alive = [pid for pid in below if _alive(pid)]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    return "" if below and not alive else f"{len(alive)} of {len(below)} children live on"


def _children(parent: int) -> list[int]:
    import psutil

    try:
        return [one.pid for one in psutil.Process(parent).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
