"""Gradient accumulation that is exact for losses over the whole batch, such as CCC and relations between examples.

The mean of the micro-batches' CCCs is not the batch's CCC. So the forward pass first runs over the micro-batches one
after another and keeps only the outputs. The loss and its gradient with respect to the outputs are then those of the
whole batch. Finally each micro-batch runs forward again and carries its rows of that gradient back to the parameters
(arXiv 2101.06983). This costs one more forward pass, and the memory of one micro-batch.

**Batch norm** is the exception: in training it normalises with the statistics of the micro-batch (over all devices),
as it would in a run of that batch size. The running statistics move once per step, to the mean over the micro-batches
weighted by their rows.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from avemo.ops import global_batch
from avemo.ops.device_axis import psum
from avemo.tasks import Stage
from media.errors import UserError


def value_and_grad(stage: Stage, pieces: int) -> Callable:
    """`jax.value_and_grad(stage.loss, has_aux=True)` over `pieces` micro-batches; for one piece that function itself.

    Raises:
      UserError: fewer than one piece; when traced, if a device's rows do not divide among the micro-batches.
    """
    if pieces < 1:
        raise UserError(f"accumulate is {pieces}: it is the number of micro-batches per step, 1 or more.")
    if pieces == 1:
        return jax.value_and_grad(stage.loss, has_aux=True)

    def run(params: Any, model_state: Any, constants: Any, batch: Any, key: jax.Array) -> Any:
        micro_batches = jax.tree.map(lambda x: _cut(x, pieces), batch)
        numbers = jnp.arange(pieces, dtype=jnp.int32)

        def forward(params: Any, number: jax.Array, rows: Any) -> tuple[Any, Any]:
            with global_batch.micro_batch(number, pieces):
                return stage.forward(params, model_state, constants, rows, key)

        outputs, states = jax.lax.map(lambda x: forward(params, *x), (numbers, micro_batches))
        joined = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)
        (loss, values), cotangents = jax.value_and_grad(stage.criterion, has_aux=True)(joined, batch)

        def backward(total: Any, x: Any) -> tuple[Any, None]:
            number, rows, cotangent = x
            _, pull, _ = jax.vjp(lambda p: forward(p, number, rows), params, has_aux=True)
            return jax.tree.map(jnp.add, total, pull(cotangent)[0]), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        inputs = (numbers, micro_batches, jax.tree.map(lambda x: _cut(x, pieces), cotangents))
        gradients, _ = jax.lax.scan(backward, zeros, inputs)
        return (loss, (_mean_state(states, micro_batches, pieces), values)), gradients

    return run


def _cut(x: jax.Array, pieces: int) -> jax.Array:
    if len(x) % pieces:
        raise UserError(
            f"{len(x)} examples per device do not divide among accumulate={pieces} micro-batches: choose a batch size "
            "that is a multiple of both, or another --config.accumulate."
        )
    return x.reshape(pieces, len(x) // pieces, *x.shape[1:])


def _mean_state(states: Any, micro_batches: Any, pieces: int) -> Any:
    """Mean of the micro-batches' model states, weighted by their rows without the padding."""
    counts = [
        (stream["weight"] if "weight" in stream else jnp.ones(jax.tree.leaves(stream)[0].shape[:2], jnp.float32)).sum(1)
        for stream in micro_batches.values()
    ]
    count = psum(functools.reduce(jnp.add, counts))
    share = count / count.sum()

    def mean(x: jax.Array) -> jax.Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x[-1]
        return jnp.tensordot(share.astype(x.dtype), x, 1)

    return jax.tree.map(mean, states)
