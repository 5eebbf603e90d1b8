"""`python -m benchmarks.precision RUN [RUN …] [--seeds=N]`: 50 steps of finished runs in float32 and in bfloat16.

Each run's own configuration on its own data, but of 50 steps. Printed is the mean loss of steps 41 to 50, over seeds,
and how far bfloat16 is from float32. `rounded` is a control: float32 throughout, its first weights rounded to bfloat16
once; what it is off by is chance.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from avemo import configuration, runtime, train, writer
from avemo.errors import UserError

STEPS, LAST = 50, 10
KINDS = ("float32", "bfloat16", "rounded")


def last_loss(config: ConfigDict, kind: str, seed: int, workdir: epath.Path) -> float:
    """Trains 50 steps and returns the mean loss of the last ten."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.steps, config.log_every, config.eval_every, config.seed = STEPS, LAST, STEPS, seed
        config.model.dtype = "bfloat16" if kind == "bfloat16" else "float32"
    initial_state = train.initial_state

    def rounded(*arguments: object) -> tuple:
        state, tx = initial_state(*arguments)
        return state.replace(params=jax.tree.map(lambda p: p.astype(jnp.bfloat16).astype(p.dtype), state.params)), tx

    train.initial_state = rounded if kind == "rounded" else initial_state
    try:
        train.train_and_evaluate(config, workdir, progress=False)
    finally:
        train.initial_state = initial_state
    return [row["loss"] for row in writer.read(workdir / "metrics.jsonl") if row["split"] == "train"][-1]


def main(argv: list[str] | None = None) -> int:
    """Prints a table; returns 1 if bfloat16 is worse by more than 1 % of the loss."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__.split("\n\n")[1])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="finished run folders, their data where it was")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args(argv)
    if arguments.seeds < 1:
        parser.error(f"--seeds={arguments.seeds}: takes 1 or more")
    runtime.start()
    try:
        with tempfile.TemporaryDirectory() as place:
            runtime.cache_compilations(place)
            return _table(arguments.runs, arguments.seeds, epath.Path(place))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _table(runs: Sequence[str], seeds: int, place: epath.Path) -> int:
    configs = {run: configuration.from_json(epath.Path(run) / "config.json") for run in runs}
    print("| run | float32 | bfloat16 | off by | rounded once, off by |\n|---|---|---|---|---|", flush=True)
    worst = 0.0
    for run, config in configs.items():
        name = epath.Path(run).name
        losses = {kind: [] for kind in KINDS}
        for seed in range(seeds):
            for kind in KINDS:
                losses[kind].append(last_loss(config, kind, seed, place / f"{name}_{kind}_{seed}"))
        single, half, control = (statistics.mean(losses[kind]) for kind in KINDS)
        worst = max(worst, half / single - 1)
        cells = (f"{single:.4f}", f"{half:.4f}", f"{half / single - 1:+.2%}", f"{control / single - 1:+.2%}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 1 if worst > 0.01 else 0


if __name__ == "__main__":
    sys.exit(main())
