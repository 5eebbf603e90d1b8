"""The one training loop: every stage, one seed or several, any number of devices."""

import abc
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from avemo.training import profiling
from avemo.training.device_clock import EVALUATION, INPUT, DeviceClock
from avemo.training.throughput import Throughput
from media.errors import Preempted
from media.waiting import waiting

Values = dict[str, jax.Array]  # the scalars of some steps `[K]`, on the devices; [K, S] for several seeds
Row = tuple[int, dict[str, Any]]  # a step and its values on the host: NumPy scalars, or [S] for several seeds
Pending = Sequence[tuple[range, Values] | Row]  # values of steps that are not in the log yet


class Program(abc.ABC):
    """What the loop drives: one run (`single.SingleRun`), or several seeds of one (`seeds_together.SeedsTogether`).

    Attributes:
      config: the run's config.
      workdir: its folder; for several seeds that of the first.
      start: the step to begin at.
      resumed: whether a checkpoint of step `start` was restored, so that it is evaluated and saved already.
      pending: values of steps before `start` that are not in the log yet.
      examples: examples per step.
    """

    config: ConfigDict
    workdir: epath.Path
    start: int
    resumed: bool
    pending: list[Row]
    examples: int

    @abc.abstractmethod
    def draw(self) -> tuple[int, Any]:
        """How many steps the next dispatch has, and their batches, on the devices."""

    @abc.abstractmethod
    def step(self, count: int, batches: Any) -> Values:
        """Trains the `count` steps of one dispatch; does not wait for them."""

    @abc.abstractmethod
    def check(self, pending: Pending) -> list[Row]:
        """Waits for some steps and looks for values that are not finite."""

    @abc.abstractmethod
    def flops(self, count: int, batches: Any) -> float:
        """Operations of one device in the `count` steps of a dispatch, which was traced before."""

    @abc.abstractmethod
    def log(self, number: int, rows: list[Row], timing: Mapping[str, float]) -> None:
        """Writes the mean of `rows` and the `timing` of their steps (`throughput.Throughput`) to the log."""

    @abc.abstractmethod
    def evaluate(self, number: int) -> None:
        """Scores the state after `number` steps on the evaluation splits."""

    @abc.abstractmethod
    def save(self, number: int, pending: list[Row]) -> None:
        """Saves the state after `number` steps, with values of steps that are not in the log yet."""

    @abc.abstractmethod
    def wait(self) -> None:
        """Waits until everything is saved."""


def run(
    program: Program,
    stop: Callable[[int], bool] = lambda step: False,
    bar: tqdm | None = None,
) -> None:
    """Trains a program from its start to `config.steps`.

    Args:
      program: what is trained.
      stop: `(step)` -> whether to save and leave before this step; asked once per dispatch.
      bar: progress bar.

    Raises:
      UserError: a value that is not finite.
      Preempted: `stop` said so, and the state was saved.
    """
    config = program.config
    pending: list[tuple[range, Values] | Row] = list(program.pending)
    profile = profiling.Profile(program.workdir, config.profile, program.start)
    clock = DeviceClock()
    throughput = Throughput(program, clock)

    def log(number: int, steps: Pending) -> None:
        rows = program.check(steps)  # waits for the steps: the clock stops when they are done
        timing = throughput.lap(number)
        with clock.waiting(EVALUATION):
            program.log(number, rows, timing)
            _show(bar, rows, timing)

    number = program.start
    try:
        while True:
            at_end, stopping = number == config.steps, stop(number)  # asked once: a signal may come at any line
            if stopping:
                pending = [*program.check(pending)]
            fresh = number != program.start or not program.resumed
            due = fresh and (at_end or (number > 0 and number % config.eval_every == 0))
            logged: Pending = []  # steps that are logged while the next ones run
            if at_end or number % config.log_every == 0:
                logged, pending = pending, []
            if logged and (due or stopping or at_end):
                log(number, logged)
                logged = []

            # THE ORDER IS FIXED: evaluate, save, and only then draw the next batch. The position of the input that is
            # saved is then exactly that of the saved parameters, so that a resumed run equals an uninterrupted one. The
            # steps before are in the log by then, or saved too, so that no line is lost or doubled.
            if due or (fresh and stopping and number):
                with clock.waiting(EVALUATION):
                    if due:
                        program.evaluate(number)
                    program.save(number, program.check(pending))
                throughput.restart()
            if stopping:
                program.wait()
                raise Preempted(f"{program.workdir} saved at step {number}; the same command resumes it.")
            if at_end:
                break
            with clock.waiting(INPUT):
                count, batches = program.draw()

            # Whatever a step reads is on the devices already.
            began, first = time.monotonic(), number == program.start
            with jax.transfer_guard("disallow"), _compiling(first):
                values = profile.run(number, program.step, count, batches)
            clock.dispatched(number + count, began, values)
            throughput.count(count, batches)
            if logged:
                log(number, logged)
            pending.append((range(number + 1, number + 1 + count), values))
            number += count
            if bar is not None:
                bar.update(count)
        program.wait()
    finally:
        clock.close()
        profile.close()


def _compiling(first: bool) -> contextlib.AbstractContextManager:
    return waiting("compiling the training step") if first else contextlib.nullcontext()


def _show(bar: tqdm | None, rows: list[Row], timing: Mapping[str, float]) -> None:
    if bar is not None:
        loss = float(np.mean(rows[-1][1]["loss"]))
        bar.set_postfix_str(f"{timing['examples_per_second']:.0f} ex/s, loss {loss:.3f}")


def on_host(pending: Pending) -> list[Row]:
    """Waits for some steps and brings their values to the host, one row per step."""
    rows: list[Row] = []
    for (steps, _), values in zip(pending, jax.device_get([values for _, values in pending]), strict=True):
        if isinstance(steps, range):
            rows += [(step, {name: value[i] for name, value in values.items()}) for i, step in enumerate(steps)]
        else:
            rows.append((steps, values))
    return rows


def first_not_finite(rows: list[Row]) -> tuple[int, str] | None:
    """The first step whose loss or gradient is not finite, and which of the two; steps are looked at in order."""
    for step, row in rows:
        for name in ("loss", "gradient_norm"):
            if name in row and not np.isfinite(row[name]):
                return step, name
    return None


def means(rows: list[Row]) -> dict[str, float]:
    """The mean over steps of each value."""
    return {name: float(np.mean([row[name] for _, row in rows])) for name in rows[0][1]}
