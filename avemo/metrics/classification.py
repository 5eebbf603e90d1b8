"""Scores of class probabilities: confusion counts, accuracy, UAR, macro-F1 and calibration."""

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float64."""
    logits = np.asarray(logits, np.float64)
    exponential = np.exp(logits - logits.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts `[true, predicted]`, float64 `[C, C]`. Adds over batches.

    A label outside 0..C−1 is left out; −1 means unlabelled.
    """
    labels, predicted = np.asarray(labels, np.int64), np.asarray(predicted, np.int64)
    keep = (labels >= 0) & (labels < classes)
    counts = np.bincount(labels[keep] * classes + predicted[keep], minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.float64)


def confusion_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy, UAR and macro-F1 `[...]` of counts `[..., true, predicted]`; 0 if nothing was counted.

    UAR is the mean recall over the classes that occur. Macro-F1 is the mean F1 over the classes that occur or are
    predicted. They equal scikit-learn's `balanced_accuracy_score` and `f1_score(average="macro")`.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(-1), counts.sum(-2)

    def mean_over(values: np.ndarray, present: np.ndarray) -> np.ndarray:
        return (values * present).sum(-1) / np.maximum(present.sum(-1), 1)

    return {
        "accuracy": hits.sum(-1) / np.maximum(counts.sum((-2, -1)), 1),
        "uar": mean_over(hits / np.maximum(true, 1), true > 0),
        "macro_f1": mean_over(2 * hits / np.maximum(true + predicted, 1), true + predicted > 0),
    }


def calibration(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> np.ndarray:
    """Calibration counts (n, Σ confidence, Σ correct) of each bin, float64 `[bins, 3]`. Adds over batches.

    Args:
      labels: int `[N]`; −1 is left out.
      probabilities: `[N, C]`.
      bins: number of bins of equal width over (0, 1].
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    keep = labels >= 0
    confidence = probabilities[keep].max(-1, initial=0)
    correct = probabilities[keep].argmax(-1) == labels[keep]
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return np.stack([np.bincount(index, w, bins) for w in (np.ones(len(index)), confidence, correct.astype(float))], -1)


def expected_calibration_error(counts: np.ndarray) -> float:
    """Σ_b n_b / n · |accuracy_b − confidence_b| of `calibration`'s counts (Guo et al., arXiv 1706.04599)."""
    return float(np.abs(counts[:, 1] - counts[:, 2]).sum() / max(counts[:, 0].sum(), 1))


def class_scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Accuracy, UAR, macro-F1 and ECE of probabilities `[N, C]` against labels int `[N]`; −1 is left out."""
    probabilities = np.asarray(probabilities)
    counts = confusion(labels, probabilities.argmax(-1), probabilities.shape[-1])
    scores = {name: float(value) for name, value in confusion_scores(counts).items()}
    return {**scores, "ece": expected_calibration_error(calibration(labels, probabilities))}
