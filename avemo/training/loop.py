"""The one training loop: every stage, any number of devices, resumable.

Order of a pass: evaluate, save, *then* draw the next batch; the iterator's saved position is then exactly that of the
saved parameters, which is what makes a resumed run equal an uninterrupted one.
"""

import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
from tqdm import tqdm

from avemo import runtime, tasks
from avemo.data import padding
from avemo.evaluation.scoring import finish, make_evaluator
from avemo.ops import device_axis, parallel
from avemo.runs import checkpoints, metrics_log
from avemo.runs.run_folder import check_fingerprints, environment, finished, lock, prepare_workdir, save_predictions
from avemo.runtime import Preempted
from avemo.tasks.base import Task, TrainState
from avemo.training import accumulation, optimizer, profiling
from media.errors import UserError
from media.files import write_atomically

logger = logging.getLogger(__name__)


def initial_state(task: Task, config: ConfigDict) -> tuple[TrainState, optax.GradientTransformation]:
    """Initialises parameters from `config.seed`, and the optimizer."""
    variables = dict(task.init(parallel.replicate_key(config.seed)))
    params = variables.pop("params")
    tx = optimizer.make(config, config.steps, params)
    ema = jax.tree.map(jnp.copy, {"params": params, **variables}) if config.ema else {}
    state = TrainState(jnp.zeros((), jnp.int32), params, variables, tx.init(params), ema)
    return parallel.replicate(state), tx


def average(before: Any, now: Any, decay: float, step: jax.Array) -> Any:
    """Exponential moving average of variables; in a short run's first steps it follows faster (as in TensorFlow:
    `decay` is at most (1 + step) / (10 + step)), so that the initial weights do not stay in it."""
    count = step.astype(jnp.float32)
    decay = jnp.minimum(decay, (1 + count) / (10 + count))
    return jax.tree.map(lambda old, new: (old * decay + new * (1 - decay)).astype(new.dtype), before, now)


def make_step(task: Task, config: ConfigDict, tx: optax.GradientTransformation) -> Callable:
    """The per-device training step `(state, batch, constants) -> (state, values)`; see `avemo.losses` on gradients."""

    value_and_grad = accumulation.value_and_grad(task, config.accumulate)

    def step(state: TrainState, batch: Any, constants: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(parallel.replicate_key(config.seed + 1), state.step)
        (loss, (model_state, values)), gradients = value_and_grad(
            state.params, state.model_state, constants, batch, key
        )
        gradients = device_axis.pmean(gradients)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = average(state.ema, {"params": params, **model_state}, config.ema, state.step) if config.ema else {}
        values = {"loss": loss, **values, "gradient_norm": optax.tree.norm(gradients)}
        return TrainState(state.step + 1, params, model_state, opt_state, ema), values

    return step


def train_and_evaluate(config: ConfigDict, workdir: str | epath.Path, progress: bool | None = None) -> dict[str, Any]:
    """Runs one stage to its end, resuming where an earlier call stopped.

    Args:
      config: the experiment.
      workdir: run folder, local or gs://.
      progress: whether to draw a progress bar; by default where stderr is a terminal.

    Returns:
      The run's result, as written to `result.json`.

    Raises:
      UserError: bad config, data or folder; a loss that is not finite (the step is named, the last checkpoint kept).
      Preempted: SIGTERM arrived and the state was saved.
    """
    if config.eval_every % config.log_every:
        raise UserError(
            f"eval_every ({config.eval_every}) must be a multiple of log_every ({config.log_every}): a resumed run "
            "starts there, and would average other steps into its next line."
        )
    workdir = prepare_workdir(config, workdir)
    runtime.cache_compilations(workdir)
    done = finished(workdir, config)
    if done is not None:
        logger.info("%s is complete (step %d): nothing to do.", workdir, done["step"])
        return done
    with lock(workdir), _catch_sigterm() as stop:
        task = tasks.make(config)
        with _disk_errors(workdir):
            return _run(task, config, workdir, stop, progress)


def _run(
    task: Task, config: ConfigDict, workdir: epath.Path, stop: Callable[[int], bool], progress: bool | None
) -> dict[str, Any]:
    state, tx = initial_state(task, config)
    manager = checkpoints.manager(workdir, config.best_metric)
    batches = iter(task.batches())
    prints = check_fingerprints(task.data, workdir)
    restored = checkpoints.restore_latest(manager, state)
    pending: list[tuple[int, dict[str, Any]]] = []  # values of the steps since the last line
    if restored is not None:
        _, state, data = restored
        pending = _as_saved(data.pop("pending", []))
        batches.set_state(data)
        logger.info("resuming %s at step %d of %d.", workdir, int(state.step), config.steps)
    start = int(state.step)
    constants = parallel.replicate(task.constants)
    log = metrics_log.MetricsWriter(workdir, start)
    step_fn = parallel.map_step(make_step(task, config, tx), config.parallel)
    evaluate = make_evaluator(task, config)
    began = time.time()
    bar = tqdm(
        total=config.steps,
        initial=start,
        desc=task.name,
        unit="step",
        mininterval=0.5,
        disable=not (sys.stderr.isatty() if progress is None else progress),
    )
    ahead = _Prefetch(batches, config)
    trace = profiling.Trace(workdir, config.profile, start)
    tick, tick_step = time.time(), start
    try:
        for number in range(start, config.steps + 1):
            at_end, stopping = number == config.steps, stop(number)  # asked once: a signal may come at any line
            if stopping:
                pending = _finite(pending, workdir, task)
            if pending and (at_end or number % config.log_every == 0):
                rows = _finite(pending, workdir, task)  # waits for the steps: the clock stops when they are done
                rate = (number - tick_step) / max(time.time() - tick, 1e-9)
                _log_train(log, number, [row for _, row in rows], rate * task.examples)
                bar.set_postfix_str(f"{rate * task.examples:.0f} ex/s, loss {float(pending[-1][1]['loss']):.3f}")
                pending, tick, tick_step = [], time.time(), number
            fresh = number != start or restored is None
            last_metrics = {}
            if fresh and (at_end or (number and number % config.eval_every == 0)):
                for split in task.eval_splits:
                    values, _ = evaluate(state, split)
                    log.write(number, split, values)
                    last_metrics |= {f"{split}/{k}": v for k, v in values.items()}
                tick = time.time()
            if fresh and number and (at_end or stopping or number % config.eval_every == 0):
                data = {**ahead.state(), "pending": [[step, _floats(row)] for step, row in pending]}
                checkpoints.save(manager, number, state, data, config, last_metrics or None)
                tick = time.time()
            if stopping:
                manager.wait_until_finished()
                raise Preempted(f"{workdir} saved at step {number}; the same command resumes it.")
            if at_end:
                break
            batch = ahead.next()
            # Whatever a step reads is on the devices already.
            with jax.transfer_guard("disallow"):
                state, values = trace.run(number, step_fn, state, batch, constants)
            pending.append((number + 1, values))
            bar.update()
        manager.wait_until_finished()
        result = finish(task, config, workdir, prints, evaluate, time.time() - began)
    finally:
        bar.close()
        trace.close()
        # Both flush; on a full disk they would hide the error that says so. Checkpoints were waited for above.
        for close in (log.close, manager.close):
            with contextlib.suppress(OSError, ValueError):
                close()
    return result


@contextlib.contextmanager
def _disk_errors(workdir: epath.Path) -> Iterator[None]:
    """Says in one line that the run's folder cannot be written, whichever of its files it was."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and "No space left" not in str(error):  # as the checkpoint's writer says it
            raise
        reason = getattr(error, "strerror", None) or "No space left on device"
        raise UserError(
            f"writing to {workdir} failed ({reason}): free some space and run the same "
            "command again; the last checkpoint is kept."
        ) from error


class _Prefetch:
    """Draws one batch ahead and puts it on the devices, while remembering the position before it."""

    def __init__(self, batches: Any, config: ConfigDict):
        self._batches, self._mode, self._ready = batches, config.parallel, None
        self._multiple = jax.local_device_count() * config.accumulate

    def _draw(self) -> tuple[Any, Any]:
        before = self._batches.get_state()
        return before, parallel.shard_batch(padding.pad_batch(next(self._batches), self._multiple), self._mode)

    def state(self) -> Any:
        """Iterator state from which the next batch is drawn again."""
        return self._ready[0] if self._ready else self._batches.get_state()

    def next(self) -> Any:
        """The next batch, on the devices; the one after it is on its way."""
        _, batch = self._ready or self._draw()
        self._ready = self._draw()
        return batch


def _finite(pending: list, workdir: epath.Path, task: Task) -> list[tuple[int, dict[str, np.ndarray]]]:
    """The values of some steps on the host; a loss or gradient among them that is not finite is an error.

    It is called before every save: no checkpoint holds what such a gradient makes of the parameters. The steps are
    looked at in order, so that the first bad one is named though later ones have run; its records go to
    `nonfinite.json`.
    """
    rows = list(zip([step for step, _ in pending], jax.device_get([row for _, row in pending]), strict=True))
    for step, row in rows:
        bad = next((name for name in ("loss", "gradient_norm") if not np.isfinite(row[name])), None)
        if bad is None:
            continue
        path = workdir / "nonfinite.json"
        if jax.process_index() == 0:
            values = {name: repr(float(value)) for name, value in row.items()}  # JSON has no NaN
            found = {"step": step, "values": values, "records": task.records(step - 1)}
            write_atomically(path, json.dumps(found, indent=2) + "\n")
        raise UserError(
            f"the {bad} is {row[bad]} at step {step}: stopped; the last checkpoint in {workdir} is kept, the records "
            f"of the batch are in {path}. Lower optimizer.learning_rate or set optimizer.clip_norm."
        )
    return rows


def _floats(row: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items()}


def _as_saved(pending: list) -> list[tuple[int, dict[str, np.ndarray]]]:
    """Values of steps that a preempted run had not logged yet, as the steps returned them."""
    return [(int(step), {name: np.float32(value) for name, value in row.items()}) for step, row in pending]


def _log_train(log: metrics_log.MetricsWriter, step: int, rows: list[dict[str, np.ndarray]], rate: float) -> None:
    log.write(step, "train", {k: float(np.mean([row[k] for row in rows])) for k in rows[0]})
    log.write(step, "timing", {"examples_per_second": rate})


@contextlib.contextmanager
def _catch_sigterm() -> Iterator[Callable[[int], bool]]:
    """Gives `stop(step)`: whether to save and leave before this step, the same step in every process."""
    if jax.process_count() > 1:
        # The signal reaches the processes at different steps; JAX's own handler agrees on one.
        yield multihost_utils.reached_preemption_sync_point
        return
    received = []
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    except ValueError:  # not the main thread (a notebook, a test): no handler, no preemption
        yield lambda step: False
        return
    try:
        yield lambda step: bool(received)
    finally:
        signal.signal(signal.SIGTERM, before)


__all__ = [
    "Preempted",
    "environment",
    "finished",
    "initial_state",
    "lock",
    "make_evaluator",
    "make_step",
    "prepare_workdir",
    "save_predictions",
    "train_and_evaluate",
    "write_atomically",
]
