"""What training may do to the data: one face, and one window of sound, under each augmentation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from avemo.analysis.pictures import figure
from avemo.data import augment, rand_augment

_DRAWS = 8
_MAGNITUDE = 0.6
# Strong enough to be visible; a run takes its strengths from its config.
_FACES: dict[str, dict[str, Any]] = {
    "crop 0.3": {"crop": 0.3},
    "flip": {"flip": True},
    "colour 0.4": {"colour": 0.4},
    "erase": {"erase": 1.0},
}
_SOUND: dict[str, dict[str, Any]] = {
    "SpecAugment 32 rows, 16 bands": {"spec_time": 32, "spec_freq": 16},
    "8 bands up or down": {"spec_shift": 8},
}


def augmented_faces(face: np.ndarray) -> dict[str, np.ndarray]:
    """A face uint8 `[S, S, 3]` under each augmentation, by name, by the functions that the training step runs."""
    keys, drawn = jax.random.split(jax.random.key(7), _DRAWS), np.repeat(face[None], _DRAWS, 0)
    found = {"as stored": face}
    for name, strength in _FACES.items():
        found[name] = _most_changed(face, augment.faces(jnp.asarray(drawn), keys, strength, len(face)))
    names = [name for name in rand_augment.OPERATIONS if name != "identity"]
    which = jnp.array([rand_augment.OPERATIONS.index(name) for name in names])
    faces, strengths = jnp.repeat(jnp.asarray(face)[None], len(names), 0), jnp.full(len(names), _MAGNITUDE, jnp.float32)
    changed = np.asarray(rand_augment.operate(faces, which, strengths))
    return found | {f"RandAugment: {name.replace('_', ' ')}": one for name, one in zip(names, changed, strict=True)}


def augmented_sound(window: np.ndarray) -> dict[str, np.ndarray]:
    """A log-mel window float32 `[96, 64]` under each augmentation, by name."""
    keys, drawn = jax.random.split(jax.random.key(7), _DRAWS), np.repeat(window[None, None], _DRAWS, 0)
    found = {"log-mel, 0.96 s": window}
    for name, strength in _SOUND.items():
        found[name] = _most_changed(window, augment.windows(jnp.asarray(drawn), keys, strength)[:, 0])
    return found


def _most_changed(before: np.ndarray, drawn: jax.Array) -> np.ndarray:
    return max(np.asarray(drawn), key=lambda one: float(np.abs(one.astype(np.float32) - before).mean()))


def plot_augmentations(face: np.ndarray, window: np.ndarray | None = None, columns: int = 6) -> Figure:
    """Shows a face uint8 `[S, S, 3]`, and a log-mel window `[96, 64]` if given, under each augmentation."""
    shown = augmented_faces(face)
    shown |= {name: one.T[::-1] for name, one in (augmented_sound(window) if window is not None else {}).items()}
    rows = -(-len(shown) // columns)
    out, panels = figure(1.5 * columns, 1.75 * rows, rows, columns)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, (name, picture) in zip(panels.flat, shown.items(), strict=False):
        axes.imshow(picture, aspect="auto" if picture.ndim == 2 else "equal")
        axes.set_title(name, fontsize=7)
    return out
