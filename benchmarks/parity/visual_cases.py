"""What the comparisons of visual networks share: a case, its pictures, and the loss whose gradients are compared."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

SEED = 0
GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "visual.npz"

# Outputs by stage; gradients and statistics by parameter path, such as "trunk/conv/kernel".
Result = tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Case:
    """One of our networks and the reference that it is compared with.

    Attributes:
      kind: the reference, "facenet" or "densenet".
      numbers: the reference's hyperparameters; see `visual_references`.
      ours: our module, with the same hyperparameters.
      place: maps a tensor of the reference to one of ours, as the converter does.
      images: [B, H, W, 3] float32, 0..255.
      scale: maps images to the reference's input.
      outputs: maps our result and the sown intermediates to outputs by stage; the result comes last.
    """

    name: str
    kind: str
    numbers: dict[str, Any]
    ours: nn.Module
    place: Callable[[str, np.ndarray], Any]
    images: np.ndarray
    scale: Callable[[np.ndarray], np.ndarray]
    outputs: Callable[[Any, Any], dict[str, jax.Array]]


def faces(count: int, size: int) -> np.ndarray:
    """Returns images of coarse and fine noise from a fixed seed: float32 [count, size, size, 3], 0..255."""
    rng = np.random.default_rng(SEED)
    coarse = rng.uniform(0, 255, (count, 8, 8, 3))
    fine = np.repeat(np.repeat(coarse, -(-size // 8), 1), -(-size // 8), 2)[:, :size, :size]
    return np.clip(fine + rng.normal(0, 20, fine.shape), 0, 255).astype(np.float32)


def probe(shape: tuple[int, ...]) -> np.ndarray:
    """Returns the gradient of the loss with respect to the result; the loss is the sum of result · probe."""
    return np.random.default_rng(SEED + 1).standard_normal(shape).astype(np.float32)
