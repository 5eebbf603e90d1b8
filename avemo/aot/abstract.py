"""A stage's training state and batches as shapes, from its config alone: no data, no weights, no device."""

import functools
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from avemo.tasks import Stage
from avemo.tasks.stage import Spec, array
from avemo.training import optimizer, state


def padded(batch: Spec, multiple: int) -> Spec:
    """The shapes of a batch after `avemo.data.padding.pad_batch`: rows padded to a multiple, and their `weight`."""
    out = {}
    for name, stream in batch.items():
        size = next(iter(stream.values())).shape[0]
        rows = size + -size % multiple
        out[name] = {field: array(rows, *x.shape[1:], dtype=x.dtype) for field, x in stream.items()}
        if rows != size:
            out[name]["weight"] = array(rows)
    return out


def variables(stage: Stage, sizes: dict[str, int]) -> dict[str, Any]:
    """The stage's initial variables as shapes."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(functools.partial(stage.init, spec=stage.spec(sizes)), key)


def initial_state(
    stage: Stage, config: ConfigDict, sizes: dict[str, int]
) -> tuple[state.TrainState, optax.GradientTransformation]:
    """The state that `training.state.initial_state` makes, as shapes, and the optimizer."""
    made = variables(stage, sizes)
    tx = optimizer.make(config, config.steps, made["params"])
    return jax.eval_shape(functools.partial(state.create, tx=tx, ema=config.ema), made), tx
