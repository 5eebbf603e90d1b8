"""Situations with disks, folders and processes; see `situations`."""

import json
import pathlib
import shutil
import subprocess
import time
from collections.abc import Callable

import numpy as np

from benchmarks.reliability.situations import SITUATIONS, first, situation
from benchmarks.reliability.world import World


@situation("read-only run folder: `evaluate --output` works; without it one line")
def read_only(world: World) -> str:
    with world.disk("50m") as disk:
        run = disk / "trained"
        shutil.copytree(world.folder / "trained", run)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        output = world.work / "out"
        good = world.run("evaluate", f"--workdir={run}", f"--data={world.clips}", f"--output={output}")
        bad = world.run("evaluate", f"--workdir={run}", f"--data={world.clips}")
    return first(
        ""
        if good.status == 0 and (output / "evaluation.json").exists()
        else f"status {good.status}: {good.text[-300:]}",
        bad.refusal("cannot be written", "--output=DIR"),
    )


def _full(
    name: str, size: str, arguments: Callable[[World, pathlib.Path], tuple[str, ...]], fill: bool = False
) -> None:
    @situation(f"full disk in {name}: one line, nothing half-made stays")
    def full(world: World) -> str:
        with world.disk(size, fill) as disk:
            done = world.run(*arguments(world, disk))
            left = [] if name in ("train", "sweep") else world.left(disk)  # the next call of these removes its own
        return first(done.refusal("No space left on device", "free some space"), " ".join(left))


_full("train", "96k", lambda world, disk: world.train(disk / "run"))
_full("sweep", "96k", lambda world, disk: ("sweep", f"--config={world.folder / 'sweep.py'}", f"--workdir={disk / 's'}"))
_full(
    "evaluate",
    "4k",
    lambda world, disk: (
        *("evaluate", f"--workdir={world.copy('trained')}", f"--data={world.clips}"),
        f"--output={disk / 'out'}",
    ),
    fill=True,
)
_full(
    "extract",
    "40k",
    lambda world, disk: ("extract", f"--workdir={world.folder / 'audio'}", f"--data={world.clips}", f"--output={disk}"),
)
_full("export", "40k", lambda world, disk: ("export", f"--workdir={world.folder / 'audio'}", f"--output={disk / 'o'}"))
_full(
    "predict",
    "40k",
    lambda world, disk: (
        *("predict", f"--workdir={world.folder / 'fusion'}", f"--input={world.folder / 'a.mp4'}"),
        f"--output={disk / 'out'}",
    ),
)


@situation("full disk in the conversion of published weights: one line, nothing half-made stays")
def full_conversion(world: World) -> str:
    with world.disk("200k") as disk:

        def call() -> int:
            import dataclasses

            from avemo.models.mobilenet import MobileNetV1
            from avemo.models.pretrained import networks
            from avemo.models.pretrained.__main__ import main

            small = dataclasses.replace(
                networks.SOURCES["faceres"],
                read=lambda path: {},
                network=lambda: MobileNetV1(width=0.25),
                fill=lambda path, shape: np.random.default_rng(0).normal(size=shape).astype(np.float32),
            )
            networks.SOURCES["faceres"] = small
            return main(["faceres", f"--file={world.folder / 'a.zip'}", f"--output={disk / 'out'}"])

        done = world.call(call)
        left = [path.name for path in disk.iterdir()]
    return first(done.refusal("free some space"), " ".join(left))


@situation("two sweeps on one folder at once: no line of any log is doubled")
def two_sweeps(world: World) -> str:
    arguments = ("sweep", f"--config={world.folder / 'sweep.py'}", f"--workdir={world.work / 'out'}")
    began = time.monotonic()
    both = [world.start(*arguments) for _ in range(2)]
    done = [world.done(child, log, began) for child, log in both]
    logs = list((world.work / "out").rglob("metrics.jsonl"))
    doubled = []
    for path in logs:
        keys = [(row["step"], row["split"]) for row in map(json.loads, path.read_text().splitlines())]
        doubled += [str(path)] if len(set(keys)) != len(keys) else []
    return first(
        "" if {one.status for one in done} == {0} else " / ".join(one.text[-200:] for one in done),
        f"{len(logs)} of 2 cells" if len(logs) != 2 else "",
        " ".join(doubled),
    )


__all__ = ["SITUATIONS"]
