"""All seeds of a setting in one compiled program: the step of a run alone, mapped over stacked states.

The features lie on the device once. A batch is the places of its windows, drawn for each seed by the same
pipeline that draws its batches when it runs alone. Reading the data, tracing, compiling, dispatch and the launch of the
recurrent network's many small operations are paid once instead of once per seed.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from avemo import tasks
from avemo.data import folds
from avemo.evaluation.scoring import try_to_score
from avemo.runs import checkpoints, metrics_log, result_file, run_folder
from avemo.tasks.audiovisual import AudioVisualStage
from avemo.tasks.audiovisual_data import FeatureData
from avemo.training import dispatch, loop, optimizer, seed_mesh, seed_scores, seed_step
from avemo.training.prefetch import Prefetch
from avemo.training.state import TrainState
from media.errors import UserError

Absent = dict[str, dict[str, dict[str, list[seed_scores.Scored]]]]  # kind, stream, split: each seed's scores


def train_seeds(configs: Sequence[ConfigDict], workdirs: Sequence[epath.Path]) -> list[str | None]:
    """Trains configs that differ in their seed and fold alone, and writes each one's run folder.

    A run folder holds what `launch.py train` writes, except that the only checkpoint is the best one, without the
    optimizer's state; of a fold no checkpoint is kept, but what it predicts of its test part with streams masked
    (`predictions/KIND/STREAM/test.npz`), to be pooled. `result.json` has more entries: `modalities` (the scores of this
    checkpoint with every other stream masked) and, of more than two streams, `without` (with that stream masked);
    `flops` (forward pass, per frame) and `step_seconds` (of one seed's share). `data.stream_scores` decides whether
    streams are scored: by default those of a run with two.

    Returns:
      For each seed None, or why it failed: a loss or gradient that is not finite. It does not touch the other seeds.

    Raises:
      UserError: bad config or data.
    """
    began = time.time()
    optimizer.check(configs[0])
    configs = [run_folder.decide(config, workdir) for config, workdir in zip(configs, workdirs, strict=True)]
    stage = tasks.make(configs[0])
    data = tasks.open_data(stage)
    if not isinstance(stage, AudioVisualStage) or not isinstance(data, FeatureData):
        raise UserError(f"seeds of task {stage.name!r} do not train together: only those of audiovisual do.")
    each = _data_of(data, configs)
    workdirs = [run_folder.prepare_workdir(c, w) for c, w in zip(configs, workdirs, strict=True)]
    with contextlib.ExitStack() as locks:
        for workdir in workdirs:
            locks.enter_context(run_folder.lock(workdir))
        program = SeedsTogether(stage, each, configs, workdirs, seed_mesh.mesh(len(configs)))
        try:
            loop.run(program)
        finally:
            program.close()
        program.finish((time.time() - began) / len(configs))
        return program.failed


class SeedsTogether(loop.Program):
    """What the loop drives for several seeds: stacked states `[S, ...]`.

    S is a multiple of the number of devices that share the seeds: the last seed is repeated, and the repeats ignored.
    Nothing is resumed. Saving keeps, for each seed, the best variables so far.

    Attributes:
      failed: for each seed why it failed, or None.
      states: the seeds `[S]` and the `TrainState` of `[S, ...]`.
    """

    start, resumed = 0, False

    def __init__(
        self,
        stage: AudioVisualStage,
        data: FeatureData | Sequence[FeatureData],
        configs: Sequence[ConfigDict],
        workdirs: Sequence[epath.Path],
        over: Mesh | None,
    ):
        each = [data] * len(configs) if isinstance(data, FeatureData) else data
        self.configs, self.workdirs, self.over = configs, workdirs, over
        self.config, self.workdir, self.pending = configs[0], workdirs[0], []
        self._stage, self._data, self.examples = stage, each[0], each[0].examples() * len(configs)
        self.states, self._steps = seed_step.prepare(stage, each, configs, over)
        batches, tables = seed_step.make_batches(each, configs, seed_mesh.rows_multiple(over, self.config.accumulate))
        self._tables = seed_mesh.place(over, tables, PartitionSpec())
        count = functools.partial(dispatch.steps_at, self.config, dispatch.at_most(self.config, stage.short))
        self._batches = Prefetch(dispatch.Dispatches(batches, count, 0, axis=-1), self._put)
        self._evaluate = seed_scores.Evaluator(stage, each, over)
        self._logs = [metrics_log.MetricsWriter(workdir) for workdir in workdirs]
        self.failed: list[str | None] = [None] * len(configs)
        self._best = seed_scores.Best(
            len(configs), seed_mesh.slots(len(configs), over), seed_scores.variables_of(self.states[1])
        )
        self._found: dict[str, list[seed_scores.Scored]] = {}  # the latest evaluation, by split
        self._unscored: dict[str, str] = {}
        self._step_seconds: list[float] = []

    def _put(self, drawn: tuple[int, dict[str, np.ndarray]]) -> tuple[int, Any]:
        count, batches = drawn
        return count, seed_mesh.place_batch(self.over, batches, len(self.configs), self.config.parallel)

    def draw(self) -> tuple[int, Any]:
        """How many steps the next dispatch has, and the batches of every seed, on the devices."""
        return self._batches.next()

    def step(self, count: int, batches: Any) -> loop.Values:
        """Trains the `count` steps of one dispatch of every seed; does not wait for them."""
        self.states, values = self._steps(count, self.states, batches, self._tables)
        return values

    def check(self, pending: loop.Pending) -> list[loop.Row]:
        """Waits for some steps, and notes the seeds that have a value that is not finite."""
        rows = loop.on_host(pending)
        for seed, failed in enumerate(self.failed):
            self.failed[seed] = failed or failure(of_seed(rows, seed))
        return rows

    def flops(self, count: int, batches: Any) -> float:
        """Operations of one device in the `count` steps of a dispatch of every seed."""
        return self._steps.flops(count, self.states, batches, self._tables)

    def log(self, number: int, rows: list[loop.Row], timing: Mapping[str, float]) -> None:
        """Writes each seed's means to its log; the rate is that of all seeds."""
        self._step_seconds.append(self.examples / len(self.configs) / timing["examples_per_second"])
        for seed, log in enumerate(self._logs):
            log.write(number, "train", loop.means(of_seed(rows, seed)))
            log.write(number, "timing", timing)

    def evaluate(self, number: int) -> None:
        """Scores every seed on the evaluation splits."""
        variables = seed_scores.variables_of(self.states[1])
        self._found = self.score(variables, self.config.eval_splits)
        for seed, log in enumerate(self._logs):
            for split, scored in self._found.items():
                log.write(number, split, scored[seed][0])

    def score(
        self, variables: Any, splits: Sequence[str], hide: Sequence[str] = ()
    ) -> dict[str, list[seed_scores.Scored]]:
        """Scores stacked variables on splits: each seed's metrics and predictions; `hide` names streams to mask."""
        evaluate = functools.partial(self._evaluate, hide=hide)
        found = {split: try_to_score(evaluate, variables, split, self._unscored) for split in splits}
        return {split: scored for split, scored in found.items() if scored is not None}

    def save(self, number: int, pending: list[loop.Row]) -> None:
        """Keeps the variables of the seeds that are better than before."""
        self._best.update(number, seed_scores.variables_of(self.states[1]), self._found, self.config.best_metric)

    def wait(self) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        """Closes the logs."""
        for log in self._logs:
            log.close()

    def finish(self, seconds: float) -> None:
        """Scores each seed's best variables, and writes its checkpoint, predictions and `result.json`.

        Args:
          seconds: one seed's share of the time.
        """
        shared = {
            "flops": seed_scores.flops_per_frame(self._stage, self._data, self._best.variables),
            # The first interval holds the compilation.
            "step_seconds": float(np.median(self._step_seconds[1:] or self._step_seconds)),
            "seeds_together": len(self.configs),
            "seconds": round(seconds, 1),
        }
        splits = self._data.scored_splits()
        others = self.score(self._best.variables, [s for s in splits if s not in self.config.eval_splits])
        absent = self._absent(splits)
        best = jax.device_get(self._best.variables)
        for seed, failed in enumerate(self.failed):
            if failed is not None or jax.process_index() != 0:
                continue
            scored = self._best.scored[seed] | {split: rows[seed] for split, rows in others.items()}
            streams = {
                kind: {m: {split: rows[seed][0] for split, rows in by.items()} for m, by in of.items()}
                for kind, of in absent.items()
            }
            if self._data.source.fold is not None:
                self._save_absent(seed, absent)
            variables = jax.tree.map(lambda x, seed=seed: x[seed], best)
            self._write(seed, variables, dict(sorted(scored.items())), {**streams, **shared})

    def _save_absent(self, seed: int, absent: Absent) -> None:
        for kind, streams in absent.items():
            for name, by_split in streams.items():
                if "test" in by_split:
                    folder = self.workdirs[seed] / "predictions" / kind / name
                    run_folder.save_predictions(folder, "test", by_split["test"][seed][1])

    def _absent(self, splits: Sequence[str]) -> Absent:
        """Scores of each stream alone (`modalities`) and, of more than two, `without` it; none if not asked for."""
        streams = self._data.source.streams
        wanted = self.config.data.get("stream_scores", "auto")
        if (wanted == "auto" and len(streams) != 2) or wanted == "off":
            return {}
        hidden = {"modalities": {name: [other for other in streams if other != name] for name in streams}}
        if len(streams) > 2:
            hidden["without"] = {name: [name] for name in streams}
        return {
            kind: {name: self.score(self._best.variables, splits, hide=hide) for name, hide in of.items()}
            for kind, of in hidden.items()
        }

    def _write(
        self, seed: int, variables: dict[str, Any], scored: Mapping[str, seed_scores.Scored], more: Mapping[str, Any]
    ) -> None:
        config, workdir, step = self.configs[seed], self.workdirs[seed], int(self._best.steps[seed])
        params = variables.pop("params")
        metrics = {split: values for split, (values, _) in scored.items()}
        if self._data.source.fold is None:
            _save(config, workdir, step, params, variables, metrics)
        prints = run_folder.check_fingerprints(self._data.folders, workdir)
        for split, (_, predictions) in scored.items():
            run_folder.save_predictions(workdir / "predictions", split, predictions)
        made = result_file.make(
            *(self._stage.name, config.steps, step, metrics, params, self._data.class_names),
            unscored=self._unscored,
            data=prints,
            weights=self._stage.weights(),
            environment=run_folder.environment(),
            **more,
        )
        result_file.write(workdir, made)


def _data_of(first: FeatureData, configs: Sequence[ConfigDict]) -> list[FeatureData]:
    """The data of each config: the first one's, in the splits of the config's own fold."""
    found: dict[Any, FeatureData] = {first.source.fold: first}
    for config in configs:
        fold = folds.of_config(config)
        if fold not in found:
            found[fold] = dataclasses.replace(first, source=first.source.with_fold(config))
    return [found[folds.of_config(config)] for config in configs]


def failure(rows: list[loop.Row]) -> str | None:
    """Why a seed failed, by the values of its steps; None if they are finite."""
    found = loop.first_not_finite(rows)
    if found is None:
        return None
    step, name = found
    return f"the {name} is not finite at step {step}: lower optimizer.learning_rate or set optimizer.clip_norm."


def of_seed(rows: list[loop.Row], seed: int) -> list[loop.Row]:
    """One seed's values of the steps."""
    return [(step, {name: value[seed] for name, value in row.items()}) for step, row in rows]


def _save(
    config: ConfigDict, workdir: epath.Path, step: int, params: Any, model_state: Any, metrics: Mapping[str, Mapping]
) -> None:
    state = TrainState(jnp.asarray(step, jnp.int32), params, model_state, {}, {})
    flat = {f"{split}/{k}": v for split, values in metrics.items() for k, v in values.items()}
    with checkpoints.manager(workdir, config.best_metric) as manager:
        checkpoints.save(manager, step, state, {}, config, flat)
        manager.wait_until_finished()
