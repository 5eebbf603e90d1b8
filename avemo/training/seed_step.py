"""The step of several seeds in one program, and their batches."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from avemo.data import features, padding, pipeline
from avemo.tasks.audiovisual import MODALITIES, AudioVisualStage
from avemo.tasks.audiovisual_data import FeatureData
from avemo.training import seed_mesh
from avemo.training.state import TrainState, initial_state
from avemo.training.step import make_step


def prepare(
    stage: AudioVisualStage, data: FeatureData, configs: Sequence[ConfigDict], over: Mesh | None
) -> tuple[tuple[jax.Array, TrainState], Callable]:
    """Stacked states `(seeds [S], TrainState of [S, ...])` and the mapped step over them."""
    repeats = seed_mesh.slots(len(configs), over) - len(configs)
    configs = [*configs, *([configs[-1]] * repeats)]
    # One seed after another: XLA:CPU hangs on the vmapped QR of recurrent initialisers.
    initial = [initial_state(stage, data, config) for config in configs]
    tx = initial[0][1]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(state for state, _ in initial))

    def one(seed: jax.Array, state: TrainState, frames: Any, tables: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        config = ConfigDict(configs[0])
        with config.ignore_type():
            config.seed = seed
        rows = {**frames, **{m: table[frames["frames"]] for m, table in tables.items()}}
        return make_step(stage, config, tx)(state, {"sequences": rows}, {})

    def step(states: Any, batch: Any, tables: Any) -> tuple[Any, dict[str, jax.Array]]:
        seeds, state = states
        # The batch is [B, S, ...]: its leading axis is the one that is shared among devices.
        batch = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), batch)
        state, values = over_seeds(functools.partial(one, tables=tables), seeds, state, batch)
        return (seeds, state), values

    seeds = jnp.asarray([c.seed for c in configs], jnp.int32)
    placed = seed_mesh.place(over, (seeds, stacked), PartitionSpec(seed_mesh.SEEDS))
    return placed, seed_mesh.map_step(step, over, configs[0].parallel)


def over_seeds(function: Callable, *stacked: Any) -> Any:
    """Applies `function` to each seed's slice of the stacked arguments, `[S, ...]`, in one program.

    On accelerators by `vmap`. On the CPU by a loop inside the program: XLA:CPU's batched small matrix products make the
    vmapped step slower than S single ones (docs/ablations.md has the figures).
    """
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda arguments: function(*arguments), stacked)
    return jax.vmap(function)(*stacked)


class Batches:
    """An iterator over batches of all seeds: fields `[B, S, L, ...]`, features as frame numbers."""

    def __init__(self, iterators: Sequence[Any], multiple: int):
        self._iterators, self._multiple = iterators, multiple

    def get_state(self) -> None:
        """No position is kept: nothing is resumed."""

    def __next__(self) -> dict[str, np.ndarray]:
        rows = [padding.pad_batch(next(iterator), self._multiple)["sequences"] for iterator in self._iterators]
        batch = {k: np.stack([row[k] for row in rows], 1) for k in rows[0] if k != "audio"}
        batch["frames"] = batch.pop("visual")[..., 0]
        return batch


def make_batches(data: FeatureData, configs: Sequence[ConfigDict], multiple: int) -> tuple[Batches, dict[str, Any]]:
    """The batches of all seeds, rows padded to a multiple, and the features by modality that they number."""
    recordings = data.recordings("train")
    tables = {m: jnp.asarray(np.concatenate([getattr(r, m) for r in recordings])) for m in MODALITIES}
    numbered, begin = [], 0
    for r in recordings:
        # Frame numbers take the place of features, and pass through the same windowing, jitter and padding.
        numbers = np.arange(begin, begin + len(r), dtype=np.int32)[:, None]
        numbered.append(dataclasses.replace(r, visual=numbers, audio=np.zeros((len(r), 0), np.float32)))
        begin += len(r)
    iterators = []
    for config in configs:
        config = ConfigDict(config)
        config.data.threads = config.data.prefetch = 0  # index arithmetic: threads would only contend
        windows = features.Windows(numbered, config.data.sequence_length, config.data.sequence_hop)
        iterators.append(iter(pipeline.train_batches(data.sources(), config, {"sequences": windows})))
    return Batches(iterators, multiple), tables
