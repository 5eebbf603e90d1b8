"""`python -m benchmarks.precision RUN [RUN …] [--seeds=N]`: the first 50 steps of runs in float32 and in bfloat16.

Each run uses its own recipe, from the start of its schedule, on its own data. Prints the mean loss of steps 41 to 50
over seeds, and the relative deviation from it (mean and standard error over seeds) of:

- the loss in bfloat16 of the parameters that float32 trained: the effect of the arithmetic alone;
- bfloat16 from the first step on;
- a control in float32 whose first weights were rounded to bfloat16 once: its deviation is chance.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from avemo import configuration, tasks
from avemo.cli import process
from avemo.data import padding
from avemo.ops import parallel
from avemo.tasks import Stage
from avemo.training.state import TrainState, initial_state
from avemo.training.step import make_step, seed_constant
from media.errors import UserError

STEPS, LAST = 50, 10
KINDS = ("float32", "bfloat16", "rounded")


def last_losses(config: ConfigDict, kind: str, seeds: int) -> Iterator[tuple[float, float]]:
    """For each seed (of first weights, order and augmentation), the mean loss of the last ten of 50 steps.

    For the kind "float32", also the mean loss of the same parameters computed in bfloat16; 0 for the others.
    """
    half = configuration.in_dtype(config, "bfloat16")
    config = half.copy_and_resolve_references() if kind == "bfloat16" else configuration.in_dtype(config, "float32")
    half.seed = 0
    step = loss_of_half = None
    for seed in range(seeds):
        config.seed = seed
        stage = tasks.make(config)
        data = tasks.open_data(stage)
        state: Any
        state, tx = initial_state(stage, data, config)
        if kind == "rounded":
            state = state.replace(params=jax.tree.map(lambda p: p.astype(jnp.bfloat16).astype(p.dtype), state.params))
        if step is None:
            step = parallel.map_step(make_step(stage, config, tx), config.parallel)
            if kind == "float32":
                loss_of_half = parallel.map_step(loss_of(tasks.make(half), half), config.parallel, donate_state=False)
        # All seeds share the first one's dropout.
        constants = parallel.replicate({**stage.constants(), **seed_constant(half)})
        batches = iter(data.batches())
        losses = []
        for number in range(STEPS):
            batch = padding.pad_batch(next(batches), jax.local_device_count() * config.accumulate)
            batch = parallel.shard_batch(batch, config.parallel)
            there = loss_of_half(state, batch, constants) if loss_of_half and number >= STEPS - LAST else 0.0
            state, values = step(state, batch, constants)
            losses.append((float(values["loss"]), float(there)))
        yield tuple(map(statistics.mean, zip(*losses[-LAST:], strict=True)))


def loss_of(stage: Stage, config: ConfigDict) -> Callable[..., jax.Array]:
    """Returns `(state, batch, constants) -> loss`, to be mapped, with the augmentation and dropout of `make_step`."""

    def loss(state: TrainState, batch: Any, constants: Any) -> jax.Array:
        key = jax.random.fold_in(parallel.replicate_key(constants["seed"] + 1), state.step)
        batch, constants = stage.prepare(batch, constants, key)
        return stage.loss(state.params, state.model_state, constants, batch, key)[0]

    return loss


def off_by(losses: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """The mean over seeds of the relative difference, and its standard error."""
    differences = [a / b - 1 for a, b in zip(losses, reference, strict=True)]
    return statistics.mean(differences), statistics.stdev(differences) / len(differences) ** 0.5


def main(argv: list[str] | None = None) -> int:
    """Prints a table; returns 1 if bfloat16's loss is more than 1 % higher."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders whose data is still in its place")
    parser.add_argument("--seeds", type=int, default=12)
    arguments = parser.parse_args(argv)
    if arguments.seeds < 2:
        parser.error(f"--seeds={arguments.seeds}: needs 2 or more for a standard error")
    process.start()
    try:
        return _table(arguments.runs, arguments.seeds)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _table(runs: Sequence[str], seeds: int) -> int:
    configs = {run: configuration.from_json(epath.Path(run) / "config.json") for run in runs}
    print("| run | float32 | its loss in bfloat16 | bfloat16 | control |\n|---|---|---|---|---|", flush=True)
    worst = 0.0
    for run, config in configs.items():
        seen = []
        for single, half, control in zip(*(last_losses(config, k, seeds) for k in KINDS), strict=True):
            seen.append((single[0], single[1], half[0], control[0]))
            print(f"{run}: {', '.join(f'{value:.4f}' for value in seen[-1])}", file=sys.stderr, flush=True)
        reference, *others = zip(*seen, strict=True)
        found = [off_by(losses, reference) for losses in others]
        worst = max(worst, found[1][0])
        cells = [f"{mean:+.2%} ± {error:.2%}" for mean, error in found]
        print(f"| {epath.Path(run).name} | {statistics.mean(reference):.4f} | {' | '.join(cells)} |", flush=True)
    return 1 if worst > 0.01 else 0


if __name__ == "__main__":
    sys.exit(main())
