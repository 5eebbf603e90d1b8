"""What a stage of the system is: a frozen record of pure functions that the one training loop runs."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import grain
import jax
import numpy as np
from etils import epath

Variables = dict[str, Any]
Metrics = dict[str, float]
Predictions = dict[str, np.ndarray]


@flax.struct.dataclass
class TrainState:
    """Everything that training changes: one pytree, saved as it is.

    Attributes:
      step: int32 scalar, steps done.
      params: trained parameters.
      model_state: collections that are not trained by gradient (`batch_stats`, `constants`).
      opt_state: the optimizer's.
      ema: moving average of `params` and `model_state`, as one dict of variables; empty where `config.ema` is 0. The
        statistics of batch norm belong to the weights they were taken with: averaged weights need averaged ones.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    ema: Any

    @property
    def variables(self) -> Variables:
        """What is evaluated: the moving average where there is one."""
        return self.ema or {"params": self.params, **self.model_state}


@dataclasses.dataclass(frozen=True)
class Task:
    """One stage: what it trains, on what, and how it is scored.

    Attributes:
      name: the stage's name in `config.task`.
      init: `(key) -> variables`, `{"params": ..., **model_state}`.
      forward: `(params, model_state, constants, batch, key) -> (outputs, model_state)` for one device's share of a
        batch, or a micro-batch of it, inside a mapped function whose axis is `parallel.AXIS`. `outputs`: float arrays
        with a leading axis of examples, in the batch's order.
      criterion: `(outputs, batch) -> (loss, values)` over a device's whole share; `loss` and the scalar `values` are
        global. A part's `weight` (float32 `[B_part]`, there where a batch was padded) is 0 for rows that do not count.
      batches: `() -> grain.IterDataset` of this process's training batches.
      records: `(number) -> {part: [{"index", "name"}]}`, the records of global training batch `number` (from 0).
      examples: examples of one global training batch, for throughput.
      predict: `(variables, batch) -> outputs` with a leading batch axis, for one device's share.
      evaluate: `(predict, variables, split) -> (metrics, predictions)`; `predict` is mapped already.
      eval_splits: splits scored during training.
      constants: arrays that the loss needs and that never change (a frozen teacher).
      data: data folders by role, for fingerprints.
      weights: fingerprints of weights that the run starts from, by role.
      class_names: names of the classes of the categorical head.
      on_finish: `(workdir, variables, result)`, writes what else belongs into the folder of a finished run; the first
        process calls it.
    """

    name: str
    init: Callable[[jax.Array], Variables]
    forward: Callable[..., tuple[Any, Any]]
    criterion: Callable[[Any, Any], tuple[jax.Array, dict[str, jax.Array]]]
    batches: Callable[[], grain.IterDataset]
    records: Callable[[int], dict[str, list[dict[str, Any]]]]
    examples: int
    predict: Callable[[Variables, Any], dict[str, jax.Array]]
    evaluate: Callable[..., tuple[Metrics, Predictions]]
    eval_splits: tuple[str, ...]
    constants: Any = dataclasses.field(default_factory=dict)
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, str] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    on_finish: Callable[[epath.Path, Variables, dict[str, Any]], None] = lambda workdir, variables, result: None

    def loss(
        self, params: Any, model_state: Any, constants: Any, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        """`(loss, (model_state, values))` of one device's share: the criterion of the forward pass."""
        outputs, model_state = self.forward(params, model_state, constants, batch, key)
        loss, values = self.criterion(outputs, batch)
        return loss, (model_state, values)
