"""A run of one seed: resumable from its checkpoints."""

import contextlib
import functools
import json
import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from avemo.data import padding
from avemo.evaluation.scoring import make_evaluator, try_to_score
from avemo.ops import parallel
from avemo.runs import checkpoints, input_record, metrics_log, result_file, run_folder
from avemo.tasks import Stage, StageData
from avemo.training import dispatch, loop
from avemo.training.prefetch import Prefetch
from avemo.training.state import initial_state
from avemo.training.step import make_step, seed_constant
from media.errors import UserError
from media.files import write_atomically

logger = logging.getLogger(__name__)


class SingleRun(loop.Program):
    """What the loop drives for one seed. `close` it whatever happens."""

    def __init__(self, stage: Stage, data: StageData, workdir: epath.Path):
        self.config, self.workdir, self._stage, self._data = stage.config, workdir, stage, data
        self.examples = data.examples()
        self._state, tx = initial_state(stage, data, self.config)
        self._manager = checkpoints.manager(workdir, self.config.best_metric)
        self._fingerprints = run_folder.check_fingerprints(data.folders, workdir)
        before = input_record.read(workdir)
        feed = data.open_feed(before.streams)
        short = stage.short and "off" not in feed.modes.values()
        bulk = dispatch.at_most(self.config, short, before.steps_per_dispatch)
        input_record.write(workdir, input_record.Input(feed.modes, bulk))
        batches = self._input = feed.batches
        self.pending, self.resumed = self._restore(batches)
        self.start = int(self._state.step)
        self._log = metrics_log.MetricsWriter(workdir, self.start)
        mode = self.config.parallel
        self._steps = dispatch.Steps(make_step(stage, self.config, tx), lambda step: parallel.map_step(step, mode))
        constants = stage.constants()
        tables = {"tables": feed.tables} if feed.tables else {}
        self._constants = parallel.replicate({**constants, **tables, **seed_constant(self.config)})
        self._evaluate = make_evaluator(stage, data, {name: self._constants[name] for name in constants})
        count = functools.partial(dispatch.steps_at, self.config, bulk)
        self._batches = Prefetch(dispatch.Dispatches(batches, count, self.start), self._put)
        self._metrics: dict[str, float] = {}  # of the latest evaluation, `split/name`; until they are saved
        self._unscored: dict[str, str] = {}

    def _restore(self, batches: Any) -> tuple[list[loop.Row], bool]:
        restored = checkpoints.restore_latest(self._manager, self._state)
        if restored is None:
            return [], False
        _, self._state, position = restored
        pending = [
            (int(step), {name: np.float32(value) for name, value in row.items()})
            for step, row in position.pop("pending", [])
        ]
        batches.set_state(position)
        step, steps = int(self._state.step), self.config.steps
        logger.info("resuming %s at step %d of %d.", self.workdir, step, steps)
        return pending, True

    def _put(self, drawn: tuple[int, Any]) -> tuple[int, Any]:
        count, batches = drawn
        multiple = jax.local_device_count() * self.config.accumulate
        batches = padding.pad_batch(batches, multiple, count)
        return count, parallel.shard_batch(batches, self.config.parallel)

    def state_bytes(self) -> int:
        """The size of a checkpoint."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._state))

    def draw(self) -> tuple[int, Any]:
        """How many steps the next dispatch has, and their batches, on the devices."""
        return self._batches.next()

    def step(self, count: int, batches: Any) -> loop.Values:
        """Trains the `count` steps of one dispatch; does not wait for them."""
        self._state, values = self._steps(count, self._state, batches, self._constants)
        return values

    def check(self, pending: loop.Pending) -> list[loop.Row]:
        """Waits for some steps.

        It is called before every save: no checkpoint holds what a gradient that is not finite makes of the parameters.

        Raises:
          UserError: a value is not finite. The records of its batch are written to `nonfinite.json`.
        """
        return finite_rows(pending, self.workdir, self._data)

    def flops(self, count: int, batches: Any) -> float:
        """Operations of one device in the `count` steps of a dispatch."""
        return self._steps.flops(count, self._state, batches, self._constants)

    def log(self, number: int, rows: list[loop.Row], timing: Mapping[str, float]) -> None:
        """Writes the mean of `rows` and the timing of their steps to the log."""
        self._log.write(number, "train", loop.means(rows))
        self._log.write(number, "timing", timing)

    def evaluate(self, number: int) -> None:
        """Scores the state after `number` steps on the evaluation splits."""
        for split in self.config.eval_splits:
            found = try_to_score(self._evaluate, self._state.variables, split, self._unscored)
            if found is not None:
                self._log.write(number, split, found[0])
                self._metrics |= {f"{split}/{name}": value for name, value in found[0].items()}

    def save(self, number: int, pending: list[loop.Row]) -> None:
        """Saves the state, the position of the input and the values that are not in the log yet."""
        values = [[step, {name: float(value) for name, value in row.items()}] for step, row in pending]
        position = {**self._batches.state(), "pending": values}
        checkpoints.save(self._manager, number, self._state, position, self.config, self._metrics or None)
        self._metrics = {}

    def wait(self) -> None:
        """Waits until everything is saved."""
        self._manager.wait_until_finished()

    def finish(self, seconds: float) -> dict[str, Any]:
        """Scores the best checkpoint on every split there is, and writes predictions and `result.json`.

        Args:
          seconds: how long the training took.
        """
        _, step, variables = checkpoints.load(self.workdir)
        metrics, unscored = {}, dict(self._unscored)
        for split in self._data.scored_splits():
            found = try_to_score(self._evaluate, variables, split, unscored)
            if found is not None:
                metrics[split] = found[0]
                run_folder.save_predictions(self.workdir / "predictions", split, found[1])
        made = result_file.make(
            *(self._stage.name, self.config.steps, int(step), metrics, variables["params"], self._data.class_names),
            unscored=unscored,
            data=self._fingerprints,
            weights=self._stage.weights(),
            seconds=round(seconds, 1),
            environment=run_folder.environment(),
        )
        if jax.process_index() == 0:
            self._data.finish(self.workdir, variables, made)
            result_file.write(self.workdir, made)
        return made

    def close(self) -> None:
        """Ends the input's processes; closes the log and the checkpoints, which are waited for elsewhere."""
        self._input.close()
        # Both flush; on a full disk they would hide the error that says so.
        for close in (self._log.close, self._manager.close):
            with contextlib.suppress(OSError, ValueError):
                close()


def finite_rows(pending: loop.Pending, workdir: epath.Path, data: StageData) -> list[loop.Row]:
    """The values of some steps on the host.

    Raises:
      UserError: a loss or gradient is not finite. The first such step is named though later ones have run; the records
        of its batch go to `nonfinite.json`.
    """
    rows = loop.on_host(pending)
    found = loop.first_not_finite(rows)
    if found is None:
        return rows
    step, name = found
    row, path = dict(rows)[step], workdir / "nonfinite.json"
    if jax.process_index() == 0:
        said = {key: repr(float(value)) for key, value in row.items()}  # JSON has no NaN
        entry = {"step": step, "values": said, "records": data.records(step - 1)}
        write_atomically(path, json.dumps(entry, indent=2) + "\n")
    raise UserError(
        f"the {name} is {row[name]} at step {step}: stopped; the last checkpoint in {workdir} is kept, the records "
        f"of the batch are in {path}. Lower optimizer.learning_rate or set optimizer.clip_norm."
    )
