"""Runs the stages of the demo: each after those whose output it reads, two at a time on a CPU.

XLA:CPU runs most of a small network's convolutions on one core, and preparing data is a process of its own, so that two
stages fill two cores that one would leave half idle.
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax

from avemo.training.preemption import catch_sigterm
from media import processes
from media.errors import Preempted, UserError

Stop = Callable[[int], bool]
_POLL = 0.2  # s between looks for a signal


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
      name: unique.
      command: its arguments after `python`.
      run: runs it in this process; it is given `stop(step)`, whether to save and leave.
      after: names of the stages whose output it reads.
    """

    name: str
    command: tuple[str, ...]
    run: Callable[[Stop], Any]
    after: tuple[str, ...] = ()


def at_once() -> int:
    """How many stages run at a time: on an accelerator one, which needs all of its memory."""
    alone = jax.default_backend() == "cpu" and jax.process_count() == 1
    return 2 if alone and jax.device_count() == 1 and (os.cpu_count() or 1) > 1 else 1


def run_all(stages: Sequence[Stage], run: Callable[[Stage, Stop], None], jobs: int) -> None:
    """Calls `run(stage, stop)` for every stage, in an order that their `after` allows.

    The first error ends the others at their next step, which training stages save, and is raised.

    Raises:
      Preempted: SIGTERM arrived.
    """
    ended = threading.Event()
    with catch_sigterm() as signalled, concurrent.futures.ThreadPoolExecutor(jobs) as pool:

        def stop(step: int) -> bool:
            return ended.is_set() or signalled(step)

        rest, done, running = list(stages), set[str](), dict[concurrent.futures.Future, Stage]()
        try:
            while rest or running:
                for stage in _ready(rest, done)[: jobs - len(running)]:
                    rest.remove(stage)
                    running[pool.submit(run, stage, stop)] = stage
                finished = concurrent.futures.wait(running, _POLL, concurrent.futures.FIRST_COMPLETED).done
                if signalled(0):  # which ends processes too, whose failure is then none
                    raise Preempted("the demo stopped; the same command goes on.")
                for future in finished:
                    done.add(running.pop(future).name)
                    future.result()
        finally:
            ended.set()


def _ready(stages: Sequence[Stage], done: Collection[str]) -> list[Stage]:
    return [stage for stage in stages if set(stage.after) <= set(done)]


def run_process(name: str, arguments: Sequence[str], environment: Mapping[str, str], stop: Stop) -> None:
    """Runs a Python process whose error line becomes our error, until `stop`.

    Raises:
      UserError: it failed.
    """
    command = processes.ending_with_this(sys.executable, *arguments)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        message: list[str] = []
        reader = threading.Thread(target=_pass_on, args=(process, message), daemon=True)
        reader.start()
        while process.poll() is None:
            if stop(0):
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL)
        reader.join()
    if process.returncode:
        raise UserError(
            message[-1] if message else f"stage {name} failed with status {process.returncode}: see its output above."
        )


def _pass_on(process: subprocess.Popen, message: list[str]) -> None:
    # The lines pass through at once, for the progress bar, except the error line, which is printed only once.
    for line in process.stderr or ():
        if line.startswith(b"error: "):
            message.append(line.decode().strip().removeprefix("error: "))
        else:
            sys.stderr.write(line.decode(errors="replace"))
