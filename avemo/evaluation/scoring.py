"""Scores of a run's variables on a split, over all devices of all processes."""

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from avemo.ops import parallel
from avemo.tasks import Scoring, Stage, StageData, Unscorable
from avemo.tasks.data import Metrics, Predict, Predictions
from avemo.tasks.stage import Variables

logger = logging.getLogger(__name__)
PLAIN = Scoring()
Scores = TypeVar("Scores")
Evaluate = Callable[[Variables, str], tuple[Metrics, Predictions]]


def make_evaluator(
    stage: Stage, data: StageData, constants: Any = None, *, scoring: Scoring = PLAIN, flip: bool = False
) -> Evaluate:
    """Returns `evaluate(variables, split) -> (metrics, predictions)`, the prediction mapped over the devices.

    Args:
      stage: the stage.
      data: the data whose splits are scored.
      constants: the stage's constants; with them a student is compared with its teacher.
      scoring: how predictions are scored.
      flip: predictions are the mean over each picture and its mirror image.
    """
    predict = over_all_devices(mirrored(stage.predict) if flip else stage.predict, stage.config.parallel)
    # Placed once; otherwise every batch would copy the arrays to the devices again.
    constants = parallel.replicate(constants or {})

    def evaluate(variables: Variables, split: str) -> tuple[Metrics, Predictions]:
        return data.score(predict, {**parallel.replicate(variables), **constants}, split, scoring)

    return evaluate


def over_all_devices(predict: Callable, mode: str) -> Predict:
    """Maps `predict(variables, batch)` over all devices of all processes.

    Every process passes the same whole batch `[B, ...]` on the host, computes its share of the rows, and gets all rows
    back. B may be any number. Reading the data is not shared: each process decodes every record.
    """
    mapped = parallel.map_step(
        lambda variables, batch, _: predict(variables, batch), mode, donate_state=False, gather_outputs=True
    )
    return functools.partial(_predict_rows, mapped, mode)


def _predict_rows(mapped: Callable, mode: str, variables: Any, batch: Any) -> dict[str, np.ndarray]:
    rows = len(jax.tree.leaves(batch)[0])
    share = -(-rows // jax.device_count()) * jax.local_device_count()
    padding, begin = share * jax.process_count() - rows, jax.process_index() * share

    def mine(x: np.ndarray) -> np.ndarray:
        return (np.concatenate([x, np.repeat(x[-1:], padding, 0)]) if padding else x)[begin : begin + share]

    out = parallel.unshard(mapped(variables, parallel.shard_batch(jax.tree.map(mine, batch), mode), {}), mode)
    if jax.process_count() > 1:
        out = multihost_utils.process_allgather(out, tiled=True)
    return jax.tree.map(lambda x: x[:rows], out)


def mirrored(predict: Callable) -> Callable:
    """`predict` averaged over each picture `[..., H, W, 3]` and its mirror image; a teacher sees the picture alone."""

    def both(variables: Variables, batch: Any) -> dict[str, jax.Array]:
        there = predict(variables, batch)
        back = predict(variables, jax.tree.map(lambda x: x[..., ::-1, :], batch))
        return {k: v if k == "teacher_logits" else (v + back[k]) / 2 for k, v in there.items()}

    return both


def try_to_score(
    evaluate: Callable[[Variables, str], Scores], variables: Variables, split: str, unscored: dict[str, str]
) -> Scores | None:
    """Scores a split. If it cannot be scored, enters the reason in `unscored`, logs it and returns None."""
    try:
        return evaluate(variables, split)
    except Unscorable as error:
        if split not in unscored:
            logger.warning("split %r is not scored: %s", split, error)
        unscored[split] = str(error)
        return None
