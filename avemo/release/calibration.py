"""Calibration of a classifier on its dev predictions, folded into its last layer.

softmax((logits + prior) / T): the prior takes back part of the classes' shares in the training data, because elsewhere
they differ; the temperature T makes probabilities mean what they say. Both are linear in the logits, so the network
that is released gives calibrated logits, and no other code knows of it. A network that answers alone takes back no
more than is nearly free on its own data. A fusion of experts, which is for recordings from anywhere, takes back the
rest (`Calibration.left`).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from avemo import metrics
from media.errors import UserError

SHARES = tuple(n / 10 for n in range(11))  # of the prior's logarithm that may be taken back
COST = 0.005  # of the accuracy on dev that taking back may cost
ENOUGH = 500  # dev examples from which a prior is fitted
_HEADS = {"teacher": "expression_head", "student": "expression_head", "audio": "head"}


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What is folded in.

    Attributes:
      temperature: T.
      share: how much of the logarithm of the prior is taken back, 0 to 1.
      prior: float64 `[C]`, what is added to the logits.
      left: float64 `[C]`, what the calibrated log-probabilities still hold of the prior's logarithm; its mean is 0.
      examples: dev examples that it was fitted on.
    """

    temperature: float
    share: float
    prior: np.ndarray
    left: np.ndarray
    examples: int

    def apply(self, log_probability: np.ndarray) -> np.ndarray:
        """Calibrated probabilities `[N, C]` from log-probabilities or logits `[N, C]`."""
        return metrics.softmax((log_probability + self.prior) / self.temperature)

    def as_json(self) -> dict[str, Any]:
        """For `result.json`."""
        return {
            "temperature": round(self.temperature, 6),
            "prior_share": self.share,
            "prior": [round(float(v), 6) + 0.0 for v in self.prior],
            "left": [round(float(v), 6) + 0.0 for v in self.left],
            "examples": self.examples,
            "split": "dev",
        }


def fit(label: np.ndarray, probability: np.ndarray) -> Calibration:
    """Fits temperature and prior.

    The share of the prior is the largest whose accuracy is at most `COST` below the best: elsewhere the classes are
    more even than in training, and rare ones are found more often. Then T minimises the negative log-likelihood, with
    classes weighed as under the prior that is left. Of less than `ENOUGH` examples no prior is known: nothing is taken
    back, and nothing left.

    Args:
      label: int `[N]`, -1 without a label; probability: `[N, C]`.
    """
    keep = label >= 0
    label, said = label[keep], np.log(np.maximum(probability[keep].astype(np.float64), 1e-12))
    if not len(label):
        raise UserError("no dev example has a label: there is nothing to calibrate on.")
    known = len(label) >= ENOUGH
    usual = np.log(np.maximum(np.exp(said).mean(0), 1e-6)) if known else np.zeros(said.shape[1])
    usual -= usual.mean()
    shares = SHARES if known else (0.0,)
    accuracies = {share: ((said - share * usual).argmax(-1) == label).mean() for share in shares}
    chosen = max(share for share, found in accuracies.items() if found >= max(accuracies.values()) - COST)
    counts = np.bincount(label, minlength=said.shape[1])
    weight = (np.maximum(counts, 1) / len(label))[label] ** -chosen
    temperature = _temperature(label, said - chosen * usual, weight)
    return Calibration(temperature, chosen, -chosen * usual, (1 - chosen) * usual / temperature, len(label))


def _temperature(label: np.ndarray, logits: np.ndarray, weight: np.ndarray) -> float:
    """The T that minimises the weighted negative log-likelihood, by golden section over its logarithm."""

    def loss(log_t: float) -> float:
        p = metrics.softmax(logits / math.exp(log_t))
        return float(-(weight * np.log(np.maximum(p[np.arange(len(label)), label], 1e-12))).mean())

    low, high, ratio = -2.0, 2.0, (math.sqrt(5) - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return math.exp((low + high) / 2)


def fold(task: str, variables: Mapping[str, Any], found: Calibration) -> dict[str, Any]:
    """The network's variables with the calibration in its last layer.

    Raises:
      UserError: the network has no classes.
    """
    name = _HEADS.get(task, "")
    head = variables["params"].get(name)
    if head is None or head["kernel"].shape[-1] != len(found.prior):
        raise UserError("only networks of faces or voices with classes can be calibrated: leave out --calibrate.")
    folded = {
        "kernel": (head["kernel"] / found.temperature).astype(np.float32),
        "bias": ((head["bias"] + found.prior) / found.temperature).astype(np.float32),
    }
    return {**variables, "params": {**variables["params"], name: folded}}
