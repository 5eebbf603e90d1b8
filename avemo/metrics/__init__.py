"""Scores in float64 NumPy on the host: traces, classes, triplets, and the significance of differences.

Most scores are computed from plain arrays of counts or moments that combine over batches, devices and hosts, so a
split's score never depends on how the split was cut.
"""

from avemo.metrics.classification import (
    calibration,
    class_scores,
    confusion,
    confusion_scores,
    expected_calibration_error,
    softmax,
)
from avemo.metrics.moments import (
    DIMENSIONS,
    EPSILON,
    ccc,
    ccc_of_sums,
    merge,
    pearson,
    recording_sums,
    rmse,
    trace_moments,
)
from avemo.metrics.traces import trace_scores
from avemo.metrics.triplets import TRIPLET_TYPES, triplet_counts, triplet_scores

__all__ = [
    "DIMENSIONS",
    "EPSILON",
    "TRIPLET_TYPES",
    "calibration",
    "ccc",
    "ccc_of_sums",
    "class_scores",
    "confusion",
    "confusion_scores",
    "expected_calibration_error",
    "merge",
    "pearson",
    "recording_sums",
    "rmse",
    "softmax",
    "trace_moments",
    "trace_scores",
    "triplet_counts",
    "triplet_scores",
]
