"""Batches padded to the rows that devices and compiled programs need; `weight` says which rows count."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Batch = dict[str, Any]


def pad_batch(batch: Mapping[str, Batch], multiple: int) -> dict[str, Batch]:
    """Pads each part `[B_part, ...]` to a multiple of rows with copies of its last row.

    A part that needs it gets a `weight` float32 `[rows]`, 0 for padding. Its rows count for no loss, metric or batch
    statistic, so that any batch size gives its own numbers on any number of devices.
    """
    out = {}
    for name, part in batch.items():
        size = len(next(iter(part.values())))
        padding = -size % multiple
        if padding:
            part = {k: np.concatenate([v, np.repeat(v[-1:], padding, 0)]) for k, v in part.items()}
            part["weight"] = (np.arange(size + padding) < size).astype(np.float32)
        out[name] = dict(part)
    return out


def without_padding(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part whose padded rows are unlabelled in every way that a loss reads: no label, no votes, no targets."""
    if "weight" not in part:
        return part
    real = part["weight"] > 0

    def masked(name: str, x: jax.Array) -> jax.Array:
        keep = real.reshape(-1, *(1,) * (x.ndim - 1))
        if name == "label":
            return jnp.where(keep, x, -1)
        if name in ("target_mask", "rater_mask", "votes"):
            return jnp.where(keep, x, jnp.zeros((), x.dtype))
        return x

    return {name: masked(name, x) for name, x in part.items()}


def padded_batches(examples: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Batches of `size` examples, the last one padded (`pad_rows`)."""
    rows: list[Batch] = []
    for row in examples:
        rows.append(row)
        if len(rows) == size:
            yield pad_rows(rows, size)
            rows = []
    if rows:
        yield pad_rows(rows, size)


def pad_rows(rows: list[Batch], size: int) -> Batch:
    """Stacks examples and pads to `size` with copies of the last, whose `weight` is 0."""
    weight = np.zeros(size, np.float32)
    weight[: len(rows)] = 1
    rows = rows + [rows[-1]] * (size - len(rows))
    return {**{k: np.stack([row[k] for row in rows]) for k in rows[0]}, "weight": weight}
