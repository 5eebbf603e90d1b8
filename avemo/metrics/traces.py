"""Scores of a split's traces, as `evaluate` writes them."""

import functools
from collections.abc import Sequence

import numpy as np

from avemo.metrics.moments import DIMENSIONS, ccc, merge, pearson, rmse, trace_moments


def trace_scores(
    predictions: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    masks: Sequence[np.ndarray] | None = None,
    dimensions: Sequence[str] = DIMENSIONS,
) -> dict[str, float]:
    """Scores the recordings of a split.

    `ccc_<dimension>`, `pearson_…` and `rmse_…` are over the concatenation of all recordings. `ccc_recording_…` is the
    mean CCC of the recordings that have a labelled frame. `ccc_mean` and `ccc_recording_mean` are means over the
    dimensions.

    Args:
      predictions: R arrays `[T, K]`.
      targets: R arrays `[T, K]`; NaN marks an unlabelled frame.
      masks: R bool arrays `[T]` or `[T, K]`; None counts every labelled frame.
      dimensions: K names.
    """
    counted = [None] * len(targets) if masks is None else masks
    recordings = np.stack(
        [trace_moments(x, y, mask) for x, y, mask in zip(predictions, targets, counted, strict=True)]
    )  # [R, K, 6]
    whole = functools.reduce(merge, recordings)
    labelled = recordings[..., 0] > 0
    each = np.where(labelled, ccc(recordings), 0).sum(0) / np.maximum(labelled.sum(0), 1)
    scores: dict[str, float] = {}
    for name, values in (("ccc", ccc(whole)), ("ccc_recording", each)):
        scores |= {f"{name}_{d}": float(v) for d, v in zip(dimensions, values, strict=True)}
        scores[f"{name}_mean"] = float(values.mean())
    for name, values in (("pearson", pearson(whole)), ("rmse", rmse(whole))):
        scores |= {f"{name}_{d}": float(v) for d, v in zip(dimensions, values, strict=True)}
    return scores
