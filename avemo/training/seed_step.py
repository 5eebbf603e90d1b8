"""The step of several seeds in one program, and their batches."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from avemo.data import padding, pipeline
from avemo.data.layouts import Arrays
from avemo.tasks.audiovisual import AudioVisualStage
from avemo.tasks.audiovisual_data import FeatureData
from avemo.training import dispatch, seed_mesh
from avemo.training.state import TrainState, stacked_states
from avemo.training.step import make_step, seed_constant

STREAM = "sequences"


def prepare(
    stage: AudioVisualStage, data: Sequence[FeatureData], configs: Sequence[ConfigDict], over: Mesh | None
) -> tuple[tuple[jax.Array, TrainState], dispatch.Steps]:
    """Stacked states `(seeds [S], TrainState of [S, ...])` and the programs of their steps, single and in bulk.

    `data` is that of each config.
    """
    repeats = seed_mesh.slots(len(configs), over) - len(configs)
    data, configs = [*data, *([data[-1]] * repeats)], [*configs, *([configs[-1]] * repeats)]
    stacked, tx = stacked_states(stage, data, configs)

    train = make_step(stage, configs[0], tx)

    def one(seed: jax.Array, state: TrainState, draws: Any, tables: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        return train(state, {STREAM: draws}, {"tables": {STREAM: tables}, "seed": seed})

    def step(states: Any, batch: Any, tables: Any) -> tuple[Any, dict[str, jax.Array]]:
        seeds, state = states
        # The batch is [B, S]: its leading axis is the one that is shared among devices.
        batch = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), batch)
        state, values = over_seeds(functools.partial(one, tables=tables), seeds, state, batch)
        return (seeds, state), values

    seeds = np.stack([seed_constant(config)["seed"] for config in configs])
    placed = seed_mesh.place(over, (seeds, stacked), PartitionSpec(seed_mesh.SEEDS))
    map_step = functools.partial(seed_mesh.map_step, over=over, mode=configs[0].parallel)
    return placed, dispatch.Steps(step, map_step, axis=-1)


def over_seeds(function: Callable, *stacked: Any) -> Any:
    """Applies `function` to each seed's slice of the stacked arguments, `[S, ...]`, in one program.

    On accelerators by `vmap`. On the CPU by a loop inside the program: XLA:CPU's batched small matrix products make the
    vmapped step slower than S single ones (docs/ablations.md has the figures).
    """
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda arguments: function(*arguments), stacked)
    return jax.vmap(function)(*stacked)


class Batches:
    """An iterator over the draws of all seeds: `index` and `start` of their windows, int32 `[B, S]`."""

    def __init__(self, iterators: Sequence[Any], multiple: int):
        self._iterators, self._multiple = iterators, multiple

    def get_state(self) -> None:
        """No position is kept: nothing is resumed."""

    def __next__(self) -> dict[str, np.ndarray]:
        rows = [padding.pad_batch(next(iterator), self._multiple)[STREAM] for iterator in self._iterators]
        return {k: np.stack([row[k] for row in rows], 1) for k in rows[0]}


def make_batches(data: Sequence[FeatureData], configs: Sequence[ConfigDict], multiple: int) -> tuple[Batches, Arrays]:
    """The draws of all seeds, rows padded to a multiple, and the tables of which they are the places.

    `data` is that of each config; the tables are the same for all folds.
    """
    tables = data[0].layout.ready
    assert tables is not None, "features are in memory"
    iterators = []
    for own, config in zip(data, configs, strict=True):
        config = ConfigDict(config)
        config.data.threads = config.data.prefetch = 0  # index arithmetic: threads would only contend
        streams = pipeline.open_streams(own.sources(), config, own.opened())
        iterators.append(iter(pipeline.join(streams, config, {STREAM: pipeline.Resident(tables, None)})))
    return Batches(iterators, multiple), tables
