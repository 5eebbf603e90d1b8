"""Scores a run on a corpus with other classes: only the classes that both know count."""

from collections.abc import Sequence

import numpy as np

from media.errors import UserError


def shared(run: Sequence[str], data: Sequence[str]) -> tuple[str, ...]:
    """The classes that both have, in the run's order.

    Raises:
      UserError: they share fewer than two classes.
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

    A label that the run does not know becomes −1, which no score counts. Probabilities of classes that the data lacks
    are dropped and the rest renormalised, so a run is not penalised for a class that cannot be right. If both have the
    same classes in the same order, nothing changes.

    Args:
      run: class names of `probability`; empty if unknown, which means the data's.
      data: class names of `labels`.
      labels: int `[N]`; −1 is unlabelled.
      probability: `[N, C]`.

    Returns:
      labels int `[N]` and probability `[N, S]`, over `shared(run, data)`.
    """
    if not run or tuple(run) == tuple(data):
        return labels, probability
    both = shared(run, data)
    # The last entry is for label −1.
    place = np.array([*(both.index(name) if name in both else -1 for name in data), -1])
    kept = probability[:, [list(run).index(name) for name in both]]
    return place[labels], kept / np.maximum(kept.sum(-1, keepdims=True), 1e-12)
