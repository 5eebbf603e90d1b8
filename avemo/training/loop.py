"""The one training loop: every stage, one seed or several, any number of devices."""

import abc
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from avemo.training import profiling
from media.errors import Preempted

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
    def log(self, number: int, rows: list[Row], rate: float) -> None:
        """Writes the mean of `rows` and the rate in examples/s to the log."""

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
    tick, tick_step = time.time(), program.start
    number = program.start
    try:
        while True:
            at_end, stopping = number == config.steps, stop(number)  # asked once: a signal may come at any line
            if stopping:
                pending = [*program.check(pending)]
            if pending and (at_end or number % config.log_every == 0):
                rows = program.check(pending)  # waits for the steps: the clock stops when they are done
                rate = program.examples * (number - tick_step) / max(time.time() - tick, 1e-9)
                program.log(number, rows, rate)
                _show(bar, rows, rate)
                pending, tick, tick_step = [], time.time(), number

            # THE ORDER IS FIXED: evaluate, save, and only then draw the next batch. The position of the input that is
            # saved is then exactly that of the saved parameters, so that a resumed run equals an uninterrupted one.
            fresh = number != program.start or not program.resumed
            due = fresh and (at_end or (number > 0 and number % config.eval_every == 0))
            if due:
                program.evaluate(number)
            if due or (fresh and stopping and number):
                program.save(number, program.check(pending))
                tick = time.time()
            if stopping:
                program.wait()
                raise Preempted(f"{program.workdir} saved at step {number}; the same command resumes it.")
            if at_end:
                break
            count, batches = program.draw()

            # Whatever a step reads is on the devices already.
            with jax.transfer_guard("disallow"):
                values = profile.run(number, program.step, count, batches)
            pending.append((range(number + 1, number + 1 + count), values))
            number += count
            if bar is not None:
                bar.update(count)
        program.wait()
    finally:
        profile.close()


def _show(bar: tqdm | None, rows: list[Row], rate: float) -> None:
    if bar is not None:
        bar.set_postfix_str(f"{rate:.0f} ex/s, loss {float(np.mean(rows[-1][1]['loss'])):.3f}")


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
