"""Triplet accuracy of an embedding: whether the similar pair lies closer than the odd one."""

import numpy as np

TRIPLET_TYPES = ("one_class", "two_class", "three_class")


def triplet_counts(embeddings: np.ndarray, types: np.ndarray, odd: np.ndarray | None = None) -> np.ndarray:
    """(correct, total) of each triplet type, float64 `[3, 2]`. Adds over batches.

    A triplet is correct iff d_ij < d_ik *and* d_ij < d_jk, with (i, j) the similar pair and k the odd one. A tie is
    wrong, so a collapsed embedding scores 0.

    Args:
      embeddings: `[N, 3, D]`.
      types: int `[N]`: 0, 1, 2 for one-, two- and three-class triplets.
      odd: int `[N]`, which of the three is k; by default the last.
    """
    embeddings, types = np.asarray(embeddings, np.float64), np.asarray(types, np.int64)
    odd = np.full(len(types), 2) if odd is None else np.asarray(odd, np.int64)
    rows = np.arange(len(types))
    i, j, k = (embeddings[rows, (odd + shift) % 3] for shift in (1, 2, 0))
    similar, first, second = (((a - b) ** 2).sum(-1) for a, b in ((i, j), (i, k), (j, k)))
    correct = (similar < first) & (similar < second)
    count = len(TRIPLET_TYPES)
    return np.stack([np.bincount(types, correct, count), np.bincount(types, minlength=count)], -1)


def triplet_scores(embeddings: np.ndarray, types: np.ndarray, odd: np.ndarray | None = None) -> dict[str, float]:
    """`triplet_accuracy` over all, and `triplet_accuracy_<type>` of each type that occurs.

    The arguments are those of `triplet_counts`.
    """
    counts = triplet_counts(embeddings, types, odd)
    correct, total = counts.sum(0)
    scores = {"triplet_accuracy": float(correct / max(total, 1))}
    for name, (right, number) in zip(TRIPLET_TYPES, counts, strict=True):
        if number:
            scores[f"triplet_accuracy_{name}"] = float(right / number)
    return scores
