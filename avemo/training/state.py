"""Everything that training changes, as one pytree."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from avemo.ops import hardware, parallel
from avemo.tasks import Stage, StageData
from avemo.tasks.initial_weights import run_once
from avemo.training import optimizer
from media.waiting import waiting


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds.

    Attributes:
      step: int32 scalar, steps done.
      params: trained parameters.
      model_state: collections that no gradient trains (`batch_stats`, `constants`).
      opt_state: the optimizer's.
      ema: moving average of `params` and `model_state`, as one dict of variables; empty if `config.ema` is 0. Averaged
        weights need averaged batch statistics: statistics belong to the weights they were taken with.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    ema: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The variables to evaluate: the moving average if there is one."""
        return self.ema or {"params": self.params, **self.model_state}


def create(variables: dict[str, Any], tx: optax.GradientTransformation, ema: float) -> TrainState:
    """The state before the first step. Works under `jax.eval_shape`."""
    model_state = dict(variables)
    params = model_state.pop("params")
    average = jax.tree.map(jnp.copy, {"params": params, **model_state}) if ema else {}
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, tx.init(params), average)


def initial_state(stage: Stage, data: StageData, config: ConfigDict) -> tuple[TrainState, optax.GradientTransformation]:
    """The initial state, drawn from `config.seed` and placed on all devices, and the optimizer."""
    with waiting("initialising the network"), hardware.on_cpu():
        variables = data.standardise(stage.init(parallel.replicate_key(config.seed), data.spec()))
        tx = optimizer.make(config, config.steps, variables["params"])
        state = run_once(functools.partial(create, tx=tx, ema=config.ema), variables)
    return parallel.replicate(state), tx


def stacked_states(
    stage: Stage, data: Sequence[StageData], configs: Sequence[ConfigDict]
) -> tuple[TrainState, optax.GradientTransformation]:
    """The initial states of configs that differ in seed and data alone, `[S, ...]` on the host, and their optimizer."""
    with waiting("initialising the network"), hardware.on_cpu():
        # One seed after another: XLA:CPU hangs on the vmapped QR of recurrent initialisers.
        drawn = {
            seed: stage.init(parallel.replicate_key(seed), data[0].spec()) for seed in {c.seed: None for c in configs}
        }
        variables = [own.standardise(drawn[config.seed]) for own, config in zip(data, configs, strict=True)]
        tx = optimizer.make(configs[0], configs[0].steps, variables[0]["params"])
        # Stacked on the host: a device would compile a program for every shape.
        stacked = jax.tree.map(lambda *x: np.stack(x), *jax.device_get(variables))
        states = run_once(jax.vmap(functools.partial(create, tx=tx, ema=configs[0].ema)), stacked)
    return jax.device_get(states), tx
