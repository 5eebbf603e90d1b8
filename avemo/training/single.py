"""A run of one seed: resumable from its checkpoints."""

import contextlib
import json
import logging
from typing import Any

import jax
import numpy as np
from etils import epath

from avemo.data import padding
from avemo.evaluation.scoring import make_evaluator, try_to_score
from avemo.ops import parallel
from avemo.runs import checkpoints, metrics_log, result_file, run_folder
from avemo.tasks import Stage, StageData
from avemo.training import loop
from avemo.training.prefetch import Prefetch
from avemo.training.state import initial_state
from avemo.training.step import make_step
from media.errors import UserError
from media.files import write_atomically

logger = logging.getLogger(__name__)


class SingleRun(loop.Program):
    """What the loop drives for one seed. `close` it whatever happens."""

    def __init__(self, stage: Stage, data: StageData, workdir: epath.Path):
        self.config, self.workdir, self._stage, self._data = stage.config, workdir, stage, data
        self.examples = data.examples()
        self._constants = parallel.replicate(stage.constants())
        self._state, tx = initial_state(stage, data, self.config)
        self._manager = checkpoints.manager(workdir, self.config.best_metric)
        batches = iter(data.batches())
        self._fingerprints = run_folder.check_fingerprints(data.folders, workdir)
        self.pending, self.resumed = self._restore(batches)
        self.start = int(self._state.step)
        self._log = metrics_log.MetricsWriter(workdir, self.start)
        self._step = parallel.map_step(make_step(stage, self.config, tx), self.config.parallel)
        self._evaluate = make_evaluator(stage, data, self._constants)
        self._batches = Prefetch(batches, self._put)
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

    def _put(self, batch: Any) -> Any:
        multiple = jax.local_device_count() * self.config.accumulate
        return parallel.shard_batch(padding.pad_batch(batch, multiple), self.config.parallel)

    def state_bytes(self) -> int:
        """The size of a checkpoint."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._state))

    def draw(self) -> Any:
        """The next batch, on the devices."""
        return self._batches.next()

    def step(self, batch: Any) -> loop.Values:
        """Trains one step; does not wait for it."""
        self._state, values = self._step(self._state, batch, self._constants)
        return values

    def check(self, pending: list[tuple[int, Any]]) -> list[loop.Row]:
        """Waits for some steps.

        It is called before every save: no checkpoint holds what a gradient that is not finite makes of the parameters.

        Raises:
          UserError: a value is not finite. The records of its batch are written to `nonfinite.json`.
        """
        return finite_rows(pending, self.workdir, self._data)

    def log(self, number: int, rows: list[loop.Row], rate: float) -> None:
        """Writes the mean of `rows` and the rate in examples/s to the log."""
        self._log.write(number, "train", loop.means(rows))
        self._log.write(number, "timing", {"examples_per_second": rate})

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
        """Closes the log and the checkpoints, which are waited for elsewhere."""
        # Both flush; on a full disk they would hide the error that says so.
        for close in (self._log.close, self._manager.close):
            with contextlib.suppress(OSError, ValueError):
                close()


def finite_rows(pending: list[tuple[int, Any]], workdir: epath.Path, data: StageData) -> list[loop.Row]:
    """The values of some steps on the host.

    Raises:
      UserError: a loss or gradient is not finite. The first such step is named though later ones have run; the records
        of its batch go to `nonfinite.json`.
    """
    steps, values = [step for step, _ in pending], jax.device_get([row for _, row in pending])
    rows = list(zip(steps, values, strict=True))
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
