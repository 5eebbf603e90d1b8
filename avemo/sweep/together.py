"""All seeds of a setting in one compiled program: the step of `avemo.training.loop`, mapped over stacked states.

The features lie on the device once; a batch is the frame numbers of its windows, drawn for each seed by the very
pipeline that draws its batches when it runs alone. What is paid once instead of once a seed: reading the data, tracing
and compiling, dispatch, and the launch of the recurrent network's many small operations.
"""

import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from avemo import tasks
from avemo.data import features, pipeline, shards
from avemo.runs import checkpoints, metrics_log
from avemo.sweep import cost, spread
from avemo.tasks.base import Task, TrainState
from avemo.training import loop

logger = logging.getLogger(__name__)
MODALITIES = ("audio", "visual")


def train_seeds(configs: Sequence[ConfigDict], workdirs: Sequence[epath.Path]) -> list[str | None]:
    """Trains configs that differ in their seed alone, and writes each one's run folder.

    A run folder holds what `launch.py train` writes, except that the only checkpoint is the best one, without the
    optimizer's state. `result.json` has besides: `modalities` (the scores of this checkpoint with the other modality
    masked), `flops` (forward pass, one frame), `step_seconds` (of one seed's share).

    Returns:
      For each seed None, or why it failed: a loss that is not finite. The other seeds are not touched by it.

    Raises:
      UserError: bad config or data.
    """
    began = time.time()
    config = configs[0]
    task = tasks.make(config)
    workdirs = [loop.prepare_workdir(c, w) for c, w in zip(configs, workdirs, strict=True)]
    over = spread.mesh(len(configs))
    states, step = _prepare(task, configs, over)
    draw, tables = _batches(config.data.features, configs)
    tables = spread.place(over, tables, PartitionSpec())
    evaluate = _Evaluator(task, config, len(configs), over)
    logs = [metrics_log.MetricsWriter(w) for w in workdirs]
    failed: list[str | None] = [None] * len(configs)
    best, best_step = _variables(states[1]), np.zeros(len(configs), int)
    best_score = np.full(len(configs), -np.inf)
    best_rows: list[dict[str, tuple[dict, dict]]] = [{} for _ in configs]  # by split, as the best checkpoint scored
    pending: list[dict[str, jax.Array]] = []
    durations, tick = [], time.time()
    for number in range(1, config.steps + 1):
        states, values = step(states, draw(), tables)
        pending.append(values)
        at_end = number == config.steps
        if at_end or number % config.log_every == 0:
            rows = jax.device_get(pending)
            durations.append((time.time() - tick) / len(rows) / len(configs))
            _log(logs, number, rows, failed, durations[-1], task.examples)
            pending = []
        if at_end or number % config.eval_every == 0:
            variables = _variables(states[1])
            scores = np.full(len(configs), -np.inf)
            metrics = {split: evaluate(variables, split) for split in task.eval_splits}
            for seed, log in enumerate(logs):
                for split, rows in metrics.items():
                    log.write(number, split, rows[seed][0])
                values = {f"{split}/{k}": v for split, rows in metrics.items() for k, v in rows[seed][0].items()}
                score = values.get(config.best_metric, float(number))
                scores[seed] = score if np.isfinite(score) else -np.inf
            better = scores >= best_score  # of equal ones the later, as the checkpoints of a run alone are ranked
            best_score, best_step = np.where(better, scores, best_score), np.where(better, number, best_step)
            filled = spread.padded(better, 0, spread.slots(len(configs), over))
            best = _choose(jnp.asarray(filled), variables, best)
            for seed in np.flatnonzero(better):
                best_rows[seed] = {split: rows[seed] for split, rows in metrics.items()}
        if pending == []:
            tick = time.time()
    for log in logs:
        log.close()
    shared = {
        "flops": _flops(task, best, config),
        # The first interval holds the compilation.
        "step_seconds": float(np.median(durations[1:] or durations)),
        "seeds_together": len(configs),
        "seconds": round((time.time() - began) / len(configs), 1),
    }
    _finish(task, configs, workdirs, best, best_step, best_rows, evaluate, failed, shared)
    return failed


def _prepare(
    task: Task, configs: Sequence[ConfigDict], over: Mesh | None
) -> tuple[tuple[jax.Array, TrainState], Callable]:
    """Stacked states `(seeds [S], TrainState of [S, ...])` and the mapped step over them.

    S is rounded up to a multiple of the devices of `over` by the last seed once more, which nobody reads.
    """
    configs = [*configs, *configs[-1:] * (spread.slots(len(configs), over) - len(configs))]
    # One seed after another: XLA:CPU hangs on the vmapped QR of recurrent initialisers.
    initial = [loop.initial_state(task, c) for c in configs]
    tx = initial[0][1]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(state for state, _ in initial))

    def one(seed: jax.Array, state: TrainState, frames: Any, tables: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        config = ConfigDict(configs[0])
        with config.ignore_type():
            config.seed = seed
        rows = {**frames, **{m: table[frames["frames"]] for m, table in tables.items()}}
        return loop.make_step(task, config, tx)(state, {"sequences": rows}, task.constants)

    def step(states: Any, batch: Any, tables: Any) -> tuple[Any, dict[str, jax.Array]]:
        seeds, state = states
        # The batch is [B, S, ...]: its leading axis is the one that is shared among devices.
        batch = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), batch)
        state, values = over_seeds(functools.partial(one, tables=tables), seeds, state, batch)
        return (seeds, state), values

    seeds = jnp.asarray([c.seed for c in configs], jnp.int32)
    placed = spread.place(over, (seeds, stacked), PartitionSpec(spread.SEEDS))
    return placed, spread.map_step(step, over, configs[0].parallel)


def over_seeds(function: Callable, *stacked: Any) -> Any:
    """`function` of each seed's slice of the stacked arguments, `[S, ...]`, in one program.

    By `vmap` on accelerators. On the CPU by a loop inside the program: XLA:CPU's batched small matrix products make the
    vmapped step slower than its S single ones (docs/ablations.md has the figures).
    """
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda arguments: function(*arguments), stacked)
    return jax.vmap(function)(*stacked)


def _batches(folder: str, configs: Sequence[ConfigDict]) -> tuple[Callable[[], dict[str, np.ndarray]], dict[str, Any]]:
    """Returns `draw() -> batch` (fields `[B, S, L, ...]`, features as frame numbers) and the features by modality."""
    recordings, _ = features.load(folder, "train")
    tables = {m: jnp.asarray(np.concatenate([getattr(r, m) for r in recordings])) for m in MODALITIES}
    numbered, begin = [], 0
    for r in recordings:
        # Frame numbers in the place of features pass through the windowing, jitter and padding of the real ones.
        numbers = np.arange(begin, begin + len(r), dtype=np.int32)[:, None]
        numbered.append(dataclasses.replace(r, visual=numbers, audio=np.zeros((len(r), 0), np.float32)))
        begin += len(r)
    iterators = []
    for config in configs:
        config = ConfigDict(config)
        config.data.threads = config.data.prefetch = 0  # index arithmetic: threads would only contend
        windows = features.Windows(numbered, config.data.sequence_length, config.data.sequence_hop)
        source = pipeline.Source(folder, features.window_example, config.data.batch.sequences)
        iterators.append(iter(pipeline.train_batches({"sequences": source}, config, {"sequences": windows})))

    def draw() -> dict[str, np.ndarray]:
        rows = [next(iterator)["sequences"] for iterator in iterators]
        batch = {k: np.stack([row[k] for row in rows], 1) for k in rows[0] if k != "audio"}
        batch["frames"] = batch.pop("visual")[..., 0]
        return batch

    return draw, tables


class _Evaluator:
    """Scores all seeds on a split through the task's own evaluation, each prediction computed once for all seeds."""

    def __init__(self, task: Task, config: ConfigDict, seeds: int, over: Mesh | None):
        def predict(variables: Any, batch: Any, _: Any) -> dict[str, jax.Array]:
            out = over_seeds(lambda v: task.predict(v, batch), variables)
            return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), out)  # the leading axis is the batch's

        self._mapped = spread.map_prediction(predict, over, config.parallel)
        self._task, self._seeds = task, seeds

    def __call__(self, variables: Any, split: str, hide: str | None = None) -> list[tuple[dict, dict]]:
        """`(metrics, predictions)` of each seed; `hide` masks one modality ("audio" or "visual") throughout."""
        outputs: list[dict[str, np.ndarray]] = []
        return [self._task.evaluate(self._replay(outputs, seed, hide), variables, split) for seed in range(self._seeds)]

    def _replay(self, outputs: list[dict[str, np.ndarray]], seed: int, hide: str | None) -> Callable:
        position = -1

        def mapped(variables: Any, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            nonlocal position
            position += 1
            if position == len(outputs):  # the first seed's pass computes, the others' read
                if hide is not None:
                    batch = {**batch, f"{hide}_mask": np.zeros_like(batch[f"{hide}_mask"])}
                outputs.append(self._mapped(variables, batch))
            return {k: v[:, seed] for k, v in outputs[position].items()}

        return mapped


@jax.jit
def _choose(better: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: jnp.where(better.reshape(-1, *[1] * (n.ndim - 1)), n, o), new, old)


def _variables(state: TrainState) -> dict[str, Any]:
    """A copy of the stacked variables that are evaluated; the state's own buffers go to the next step."""
    return jax.tree.map(jnp.copy, state.variables)


def _log(logs: list, number: int, rows: list, failed: list, seconds: float, examples: int) -> None:
    for seed, log in enumerate(logs):
        finite = np.isfinite([row["loss"][seed] for row in rows])
        if failed[seed] is None and not finite.all():
            first = number - len(rows) + 1 + int(np.argmin(finite))
            failed[seed] = (
                f"the loss is not finite at step {first}: lower optimizer.learning_rate or set optimizer.clip_norm."
            )
        log.write(number, "train", {k: float(np.mean([row[k][seed] for row in rows])) for k in rows[0]})
        log.write(number, "timing", {"examples_per_second": examples / max(seconds, 1e-9)})


def _flops(task: Task, variables: Any, config: ConfigDict) -> int:
    """Operations of the forward pass of one sequence, per frame."""
    one = jax.tree.map(lambda x: x[0], variables)
    recording = features.load(config.data.features, "train")[0][0]
    length = config.data.sequence_length
    row = features.sequence(recording, 0, length, 0.0)
    batch = {k: jnp.asarray(row[k])[None] for k in ("audio", "visual", "audio_mask", "visual_mask", "mask")}
    return round(cost.flops(task.predict, one, batch) / length)


def _finish(
    task: Task,
    configs: Sequence[ConfigDict],
    workdirs: Sequence[epath.Path],
    best: Any,
    best_step: np.ndarray,
    best_rows: Sequence[Mapping[str, tuple[dict, dict]]],
    evaluate: _Evaluator,
    failed: Sequence[str | None],
    shared: Mapping[str, Any],
) -> None:
    """Writes each seed's checkpoint, predictions and `result.json`."""
    available = set.intersection(*(set(shards.splits(path)) for path in task.data.values()))
    splits = sorted({*task.eval_splits, *(available - {"train"})})
    scored = {
        split: [rows[split] for rows in best_rows] if split in task.eval_splits else evaluate(best, split)
        for split in splits
    }
    hidden = {"audio": "visual", "visual": "audio"}
    alone = {m: {split: evaluate(best, split, hide) for split in splits} for m, hide in hidden.items()}
    prints = {role: shards.fingerprint(path) for role, path in task.data.items()}
    best = jax.device_get(best)
    for seed, (config, workdir) in enumerate(zip(configs, workdirs, strict=True)):
        if failed[seed] is not None or jax.process_index() != 0:
            continue
        variables = jax.tree.map(lambda x, seed=seed: x[seed], best)
        params = variables.pop("params")
        metrics = {split: rows[seed][0] for split, rows in scored.items()}
        _save(config, workdir, int(best_step[seed]), params, variables, metrics)
        loop.write_atomically(workdir / "data.json", json.dumps(prints, indent=2) + "\n")
        for split, rows in scored.items():
            loop.save_predictions(workdir / "predictions", split, rows[seed][1])
        result = {
            "task": task.name,
            "step": config.steps,
            "evaluated_step": int(best_step[seed]),
            "metrics": metrics,
            "modalities": {m: {s: rows[seed][0] for s, rows in by.items()} for m, by in alone.items()},
            "data": prints,
            "weights": dict(task.weights),
            "class_names": list(task.class_names),
            "parameters": int(sum(p.size for p in jax.tree.leaves(params))),
            **shared,
            "environment": loop.environment(),
        }
        text = json.dumps(result, indent=2, default=float) + "\n"
        loop.write_atomically(workdir / "result.json", text)


def _save(
    config: ConfigDict, workdir: epath.Path, step: int, params: Any, model_state: Any, metrics: Mapping[str, Mapping]
) -> None:
    state = TrainState(jnp.asarray(step, jnp.int32), params, model_state, {}, {})
    flat = {f"{split}/{k}": v for split, values in metrics.items() for k, v in values.items()}
    with checkpoints.manager(workdir, config.best_metric) as manager:
        checkpoints.save(manager, step, state, {}, config, flat)
        manager.wait_until_finished()
