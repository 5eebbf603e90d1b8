"""`python -m benchmarks.precision RUN [RUN …] [--seeds=N]`: the first 50 steps of runs in float32 and in bfloat16.

Each run's own recipe, as its schedule begins, on its own data. Printed is the mean loss of steps 41 to 50 over seeds,
and how far bfloat16 is from float32 of the same seed: mean and standard error over seeds. `rounded` is a control:
float32 throughout, its first weights rounded to bfloat16 once; what it is off by is chance.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from avemo import configuration, padding, parallel, runtime, tasks, train
from avemo.errors import UserError

STEPS, LAST = 50, 10
KINDS = ("float32", "bfloat16", "rounded")


def last_losses(config: ConfigDict, kind: str, seeds: int) -> Iterator[float]:
    """For each seed, of first weights, order and augmentation, the mean loss of the last ten of 50 steps."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.dtype = "bfloat16" if kind == "bfloat16" else "float32"
    step = None
    for seed in range(seeds):
        config.seed = seed
        task = tasks.make(config)
        state, tx = train.initial_state(task, config)
        if kind == "rounded":
            state = state.replace(params=jax.tree.map(lambda p: p.astype(jnp.bfloat16).astype(p.dtype), state.params))
        # Compiled once; dropout alone is then that of the first seed.
        step = step or parallel.map_step(train.make_step(task, config, tx), config.parallel)
        constants, batches = parallel.replicate(task.constants), iter(task.batches())
        losses = []
        for _ in range(STEPS):
            batch = padding.pad_batch(next(batches), jax.local_device_count() * config.accumulate)
            state, values = step(state, parallel.shard_batch(batch, config.parallel), constants)
            losses.append(float(values["loss"]))
        yield statistics.mean(losses[-LAST:])


def off_by(losses: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds of how far one is above the other, relative to it, and the mean's standard error."""
    differences = [a / b - 1 for a, b in zip(losses, reference, strict=True)]
    return statistics.mean(differences), statistics.stdev(differences) / len(differences) ** 0.5


def main(argv: list[str] | None = None) -> int:
    """Prints a table; returns 1 if bfloat16 is worse by more than 1 % of the loss."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__.split("\n\n")[1])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, their data where it was")
    parser.add_argument("--seeds", type=int, default=12)
    arguments = parser.parse_args(argv)
    if arguments.seeds < 2:
        parser.error(f"--seeds={arguments.seeds}: takes 2 or more, which an error is told from")
    runtime.start()
    try:
        return _table(arguments.runs, arguments.seeds)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _table(runs: Sequence[str], seeds: int) -> int:
    configs = {run: configuration.from_json(epath.Path(run) / "config.json") for run in runs}
    print("| run | float32 | bfloat16 | off by | rounded once, off by |\n|---|---|---|---|---|", flush=True)
    worst = 0.0
    for run, config in configs.items():
        losses = {kind: [] for kind in KINDS}
        for several in zip(*(last_losses(config, kind, seeds) for kind in KINDS), strict=True):
            print(f"{run}: {', '.join(f'{value:.4f}' for value in several)}", file=sys.stderr, flush=True)
            for kind, value in zip(KINDS, several, strict=True):
                losses[kind].append(value)
        half, control = (off_by(losses[kind], losses["float32"]) for kind in KINDS[1:])
        worst = max(worst, half[0])
        means = (f"{statistics.mean(losses[kind]):.4f}" for kind in KINDS[:2])
        cells = (epath.Path(run).name, *means, *(f"{mean:+.2%} ± {error:.2%}" for mean, error in (half, control)))
        print(f"| {' | '.join(cells)} |", flush=True)
    return 1 if worst > 0.01 else 0


if __name__ == "__main__":
    sys.exit(main())
