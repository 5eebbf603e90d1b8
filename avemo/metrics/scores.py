"""Scores of a split: mergeable states, and the dictionaries that `evaluate` writes.

Everything here is float64 NumPy on the host. A state is a plain array that *adds* over batches, devices and hosts:
counts for classification, moments for traces (merged by Chan's formula, since raw sums of squares cancel at an
offset), so that the score of the whole never depends on how it was cut.

Variance convention: **biased / biased**. Every moment is divided by n, in CCC = 2·cov / (var_x + var_y + (mean_x −
mean_y)²) as in Pearson's r (where it cancels). A perfect prediction scores 1 (formulas that mix n and n − 1 give
0.9967 for 300 frames). Degenerate traces: one that is constant, one frame, or none, has CCC 0 and Pearson r 0.
"""

from collections.abc import Sequence

import numpy as np

EPSILON = 1e-8  # in the CCC's denominator only, as in `avemo.losses`
DIMENSIONS = ("valence", "arousal")
TRIPLET_TYPES = ("one_class", "two_class", "three_class")


def moments(predictions: np.ndarray, targets: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """The state of a trace: (n, mean_x, mean_y, Sxx, Syy, Sxy) with centred sums S, float64 [K, 6].

    Args:
      predictions: [T, K] (x).
      targets: [T, K] (y); NaN is unlabelled and left out.
      mask: [T] or [T, K], bool, the frames that count.
    """
    # One trace a row: NumPy sums a row with vector instructions, a column of [T, K] number by number.
    x, y = (np.array(np.asarray(v).T, np.float64, order="C") for v in (predictions, targets))
    with np.errstate(invalid="ignore"):  # infinities of both signs: not finite, all the same
        sum_y = y.sum(1)
    if mask is None and np.isfinite(sum_y).all():  # every frame counts
        n = np.full(len(y), float(y.shape[1]))
        mean_x, mean_y = x.sum(1) / np.maximum(n, 1), sum_y / np.maximum(n, 1)
        dx, dy = np.subtract(x, mean_x[:, None], out=x), np.subtract(y, mean_y[:, None], out=y)
    else:
        counts = np.isfinite(y)
        if mask is not None:
            counts = counts & np.asarray(mask, bool).reshape(y.shape[1], -1).T
        n = counts.sum(1)
        mean_x, mean_y = (np.where(counts, v, 0).sum(1) / np.maximum(n, 1) for v in (x, y))
        dx, dy = np.where(counts, x - mean_x[:, None], 0), np.where(counts, y - mean_y[:, None], 0)
    products = (np.vecdot(a, b) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    return np.stack([n, mean_x, mean_y, *products], -1)


def merge(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The moments [..., 6] of two sets of frames together (Chan et al., 1979); exact at any offset, and associative."""
    n = a[..., 0] + b[..., 0]
    share = b[..., 0] / np.maximum(n, 1)
    step_x, step_y = b[..., 1] - a[..., 1], b[..., 2] - a[..., 2]
    between = a[..., 0] * share
    return np.stack(
        [
            n,
            a[..., 1] + share * step_x,
            a[..., 2] + share * step_y,
            a[..., 3] + b[..., 3] + between * step_x * step_x,
            a[..., 4] + b[..., 4] + between * step_y * step_y,
            a[..., 5] + b[..., 5] + between * step_x * step_y,
        ],
        -1,
    )


def ccc(state: np.ndarray) -> np.ndarray:
    """Concordance correlation [...] of moments [..., 6], biased / biased; 0 for degenerate traces."""
    n, mean_x, mean_y, sxx, syy, sxy = np.moveaxis(state, -1, 0)
    n = np.maximum(n, 1)
    return 2 * sxy / n / (sxx / n + syy / n + (mean_x - mean_y) ** 2 + EPSILON)


def pearson(state: np.ndarray) -> np.ndarray:
    """Pearson's r [...] of moments [..., 6]; 0 where either trace is constant."""
    scale = np.sqrt(state[..., 3] * state[..., 4])
    return np.where(scale > 0, state[..., 5] / np.where(scale > 0, scale, 1), 0.0)


def rmse(state: np.ndarray) -> np.ndarray:
    """Root mean squared error [...] of moments [..., 6]; 0 for no frame."""
    n, mean_x, mean_y, sxx, syy, sxy = np.moveaxis(state, -1, 0)
    return np.sqrt(np.maximum((sxx + syy - 2 * sxy) / np.maximum(n, 1), 0) + (mean_x - mean_y) ** 2)


def traces(
    predictions: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    masks: Sequence[np.ndarray] | None = None,
    dimensions: Sequence[str] = DIMENSIONS,
) -> dict[str, float]:
    """Scores of a split's recordings, each a trace [T, K].

    `ccc_<dimension>`, `pearson_…`, `rmse_…` are over the concatenation of all recordings; `ccc_recording_…` is the
    mean of the recordings' own CCCs, over recordings with at least one labelled frame. `ccc_mean` and
    `ccc_recording_mean` are means over the dimensions.

    Args:
      predictions: R arrays [T, K].
      targets: R arrays [T, K]; NaN is unlabelled.
      masks: R bool arrays [T] or [T, K]; None counts every labelled frame.
      dimensions: K names.
    """
    masks = [None] * len(targets) if masks is None else masks
    states = np.stack([moments(*rows) for rows in zip(predictions, targets, masks, strict=True)])  # [R, K, 6]
    whole = states[0]
    for state in states[1:]:
        whole = merge(whole, state)
    labelled = states[..., 0] > 0
    each = np.where(labelled, ccc(states), 0).sum(0) / np.maximum(labelled.sum(0), 1)
    scores = {}
    for name, values in (("ccc", ccc(whole)), ("ccc_recording", each)):
        scores |= {f"{name}_{d}": float(v) for d, v in zip(dimensions, values, strict=True)}
        scores[f"{name}_mean"] = float(values.mean())
    for name, values in (("pearson", pearson(whole)), ("rmse", rmse(whole))):
        scores |= {f"{name}_{d}": float(v) for d, v in zip(dimensions, values, strict=True)}
    return scores


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float64."""
    logits = np.asarray(logits, np.float64)
    exponential = np.exp(logits - logits.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts [true, predicted], float64 [C, C]; a label outside 0..C−1 (−1: none) is left out. Adds over batches."""
    labels, predicted = np.asarray(labels, np.int64), np.asarray(predicted, np.int64)
    keep = (labels >= 0) & (labels < classes)
    counts = np.bincount(labels[keep] * classes + predicted[keep], minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.float64)


def from_confusion(counts: np.ndarray) -> dict[str, float]:
    """Accuracy, UAR and macro-F1 of counts [true, predicted].

    UAR is the mean recall over the classes that occur; macro-F1 the mean F1 over the classes that occur or are
    predicted (scikit-learn's `balanced_accuracy_score` and `f1_score(average="macro")`).
    """
    hits, true, guessed = np.diag(counts), counts.sum(1), counts.sum(0)
    recall = hits / np.maximum(true, 1)
    f1 = 2 * hits / np.maximum(true + guessed, 1)
    return {
        "accuracy": float(hits.sum() / max(counts.sum(), 1)),
        "uar": float(recall[true > 0].mean()) if (true > 0).any() else 0.0,
        "macro_f1": float(f1[true + guessed > 0].mean()) if counts.any() else 0.0,
    }


def calibration(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> np.ndarray:
    """The state of the calibration error: (n, Σ confidence, Σ correct) of each bin, float64 [bins, 3]. Adds over
    batches.

    Args:
      labels: int [N]; −1 is left out.
      probabilities: [N, C].
      bins: bins of equal width over (0, 1].
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    keep = labels >= 0
    confidence = probabilities[keep].max(-1, initial=0)
    correct = probabilities[keep].argmax(-1) == labels[keep]
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return np.stack([np.bincount(index, w, bins) for w in (np.ones(len(index)), confidence, correct.astype(float))], -1)


def expected_calibration_error(state: np.ndarray) -> float:
    """Σ_b n_b / n · |accuracy_b − confidence_b| of `calibration`'s state (Guo et al., arXiv 1706.04599)."""
    return float(np.abs(state[:, 1] - state[:, 2]).sum() / max(state[:, 0].sum(), 1))


def classification(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Accuracy, UAR, macro-F1 and ECE of probabilities [N, C] against labels [N] (−1 is left out)."""
    probabilities = np.asarray(probabilities)
    counts = confusion(labels, probabilities.argmax(-1), probabilities.shape[-1])
    return {**from_confusion(counts), "ece": expected_calibration_error(calibration(labels, probabilities))}


def triplet_counts(embeddings: np.ndarray, types: np.ndarray, odd: np.ndarray | None = None) -> np.ndarray:
    """(correct, total) of each triplet type, float64 [3, 2]. Adds over batches.

    Correct iff d_ij < d_ik *and* d_ij < d_jk, with (i, j) the similar pair and k the odd one; a tie is wrong, so that a
    collapsed embedding scores 0.

    Args:
      embeddings: [N, 3, D].
      types: int [N]: 0, 1, 2 for one-, two- and three-class triplets.
      odd: int [N], which of the three is k; None means the last.
    """
    embeddings, types = np.asarray(embeddings, np.float64), np.asarray(types, np.int64)
    odd = np.full(len(types), 2) if odd is None else np.asarray(odd, np.int64)
    rows = np.arange(len(types))
    i, j, k = (embeddings[rows, (odd + shift) % 3] for shift in (1, 2, 0))
    similar, first, second = (((a - b) ** 2).sum(-1) for a, b in ((i, j), (i, k), (j, k)))
    correct = (similar < first) & (similar < second)
    count = len(TRIPLET_TYPES)
    return np.stack([np.bincount(types, correct, count), np.bincount(types, minlength=count)], -1)


def triplets(embeddings: np.ndarray, types: np.ndarray, odd: np.ndarray | None = None) -> dict[str, float]:
    """`triplet_accuracy` over all and `triplet_accuracy_<type>` of each type there is; arguments: `triplet_counts`."""
    counts = triplet_counts(embeddings, types, odd)
    correct, total = counts.sum(0)
    scores = {"triplet_accuracy": float(correct / max(total, 1))}
    for name, (right, number) in zip(TRIPLET_TYPES, counts, strict=True):
        if number:
            scores[f"triplet_accuracy_{name}"] = float(right / number)
    return scores
