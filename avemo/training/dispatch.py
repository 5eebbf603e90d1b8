"""How many steps run per dispatch: short steps in bulk, in one program, because launching each takes longer than it.

A dispatch of K steps begins only at multiples of K and never crosses a line of the log, an evaluation or the end. Which
steps run in bulk is so a function of their numbers alone, and a resumed run equals an uninterrupted one bit for bit.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from avemo.training import flops, loop
from media.errors import UserError

_MOST = 16  # more gains nothing that can be measured, and a signal waits for them all


def at_most(config: ConfigDict, short: bool, before: int | None = None) -> int:
    """Steps per dispatch by `steps_per_dispatch` (absent: auto).

    Args:
      config: `log_every` and `profile` are read too; a profile is of single steps.
      short: whether the step is short and reads nothing from the host but numbers of examples.
      before: what `auto` was before the run was interrupted.

    Raises:
      UserError: it is neither "auto" nor a number above 0.
    """
    wanted = str(config.get("steps_per_dispatch", "auto"))
    if wanted != "auto":
        if not wanted.isdecimal() or not int(wanted):
            raise UserError(f"steps_per_dispatch is {wanted}: it takes auto, or a number of steps from 1.")
        return int(wanted)
    if before:
        return before
    # A CPU launches a step in a fraction of its time, and would compile a second program for nothing.
    if not short or config.profile or jax.default_backend() == "cpu":
        return 1
    return max(count for count in range(1, _MOST + 1) if config.log_every % count == 0)


def steps_at(config: ConfigDict, bulk: int, number: int) -> int:
    """How many steps the dispatch after `number` steps has."""
    ends = (number - number % every + every for every in (config.log_every, config.eval_every))
    return bulk if number % bulk == 0 and number + bulk <= min(*ends, config.steps) else 1


class Dispatches:
    """An iterator over the host's batches of one dispatch each: `{stream: {field: [B, ...]}}`, or `[B, K, ...]`.

    Args:
      batches: an iterator over batches, with `get_state`.
      count: `(number)` -> steps of the dispatch after that many steps.
      start: steps that are done already.
      axis: of the K steps.
    """

    def __init__(self, batches: Any, count: Callable[[int], int], start: int, axis: int = 1):
        self._batches, self._count, self._number, self._axis = batches, count, start, axis

    def get_state(self) -> Any:
        """The position of the batches."""
        return self._batches.get_state()

    def __next__(self) -> tuple[int, Any]:
        count = self._count(self._number)
        drawn = [next(self._batches) for _ in range(count)]
        self._number += count
        if count == 1:
            return 1, drawn[0]
        return count, jax.tree.map(lambda *x: np.stack(x, self._axis), *drawn)


def in_bulk(step: Callable, axis: int = 1) -> Callable:
    """`step(state, batch, constants) -> (state, values)` once per entry of the batches' axis; values are `[K, ...]`."""

    def steps(state: Any, batches: Any, constants: Any) -> tuple[Any, loop.Values]:
        in_turn = jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), batches)
        return jax.lax.scan(lambda state, batch: step(state, batch, constants), state, in_turn)

    return steps


class Steps:
    """The mapped programs of single steps and of steps in bulk, each compiled when it is first needed.

    Args:
      step: `(state, batch, constants) -> (state, values)` of one device.
      map_step: maps such a function over the devices.
      axis: of the K steps in the batches of a dispatch.
    """

    def __init__(self, step: Callable, map_step: Callable[[Callable], Callable], axis: int = 1):
        def single(state: Any, batch: Any, constants: Any) -> tuple[Any, Mapping[str, jax.Array]]:
            state, values = step(state, batch, constants)
            return state, jax.tree.map(lambda x: x[None], values)

        single.__name__ = step.__name__
        self._single, self._bulk = map_step(single), map_step(in_bulk(step, axis))

    def __call__(self, count: int, state: Any, batches: Any, constants: Any) -> tuple[Any, loop.Values]:
        """Runs one dispatch: the state after it, and the values of its steps `[count, ...]`."""
        return (self._single if count == 1 else self._bulk)(state, batches, constants)

    def flops(self, count: int, state: Any, batches: Any, constants: Any) -> float:
        """Operations of one device in a dispatch."""
        return flops.of_mapped(self._single if count == 1 else self._bulk, state, batches, constants)
