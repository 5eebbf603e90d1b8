"""Scoring a run on a corpus with other classes: only those that both know."""

from collections.abc import Sequence

import numpy as np

from media.errors import UserError


def shared(run: Sequence[str], data: Sequence[str]) -> tuple[str, ...]:
    """The classes that both have, in the run's order.

    Raises:
      UserError: fewer than two.
    """
    both = tuple(name for name in run if name in data)
    if len(both) < 2:
        raise UserError(
            f"the run knows {', '.join(run)}, the data {', '.join(data)}: no two classes are the same, so nothing can "
            "be scored."
        )
    return both


def match(
    run: Sequence[str], data: Sequence[str], labels: np.ndarray, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities over the classes that both have.

    A label that the run does not know becomes -1, which no score counts; the probabilities of classes that the data
    does not have are left out and the others add up to 1 again, so that a run is not blamed for a class that cannot
    be right. Where both have the same classes in the same order, nothing changes.

    Args:
      run: class names of `probability`; empty where they are not known: those of the data.
      data: class names of `labels`.
      labels: int `[N]`, -1 = none.
      probability: `[N, C]`.

    Returns:
      labels int `[N]` and probability `[N, S]`, over `shared(run, data)`.
    """
    if not run or tuple(run) == tuple(data):
        return labels, probability
    both = shared(run, data)
    place = np.array([*(both.index(name) if name in both else -1 for name in data), -1])  # the last is that of -1
    kept = probability[:, [list(run).index(name) for name in both]]
    return place[labels], kept / np.maximum(kept.sum(-1, keepdims=True), 1e-12)
