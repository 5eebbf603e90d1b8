"""One training step of one device: gradients, the optimizer's update, the moving average."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from avemo.ops import device_axis, parallel
from avemo.tasks import Stage
from avemo.training import accumulation
from avemo.training.state import TrainState


def average(before: Any, now: Any, decay: float, step: jax.Array) -> Any:
    """Exponential moving average of variables.

    `decay` is at most (1 + step) / (10 + step), as in TensorFlow: in the first steps the average follows faster, so
    that the initial weights do not stay in it.
    """
    count = step.astype(jnp.float32)
    kept = jnp.minimum(decay, (1 + count) / (10 + count))
    return jax.tree.map(lambda old, new: (old * kept + new * (1 - kept)).astype(new.dtype), before, now)


def seed_constant(config: ConfigDict) -> dict[str, np.ndarray]:
    """The seed as one of the step's constants, so that runs of all seeds share a compiled program."""
    return {"seed": np.asarray(config.seed % 2**32, np.uint32)}


def make_step(stage: Stage, config: ConfigDict, tx: optax.GradientTransformation) -> Callable:
    """The per-device training step `(state, batch, constants) -> (state, values)`; see `avemo.losses` on gradients.

    The constants are those of the stage, and `seed_constant`.
    """
    value_and_grad = accumulation.value_and_grad(stage, config.accumulate)

    def step(state: TrainState, batch: Any, constants: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(parallel.replicate_key(constants["seed"] + 1), state.step)
        batch, constants = stage.prepare(batch, constants, key)
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
