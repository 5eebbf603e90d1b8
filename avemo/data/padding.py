"""Pads batches to the number of rows that devices and compiled programs need; `weight` marks the rows that count."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Batch = dict[str, Any]


def pad_batch(batch: Mapping[str, Batch], multiple: int, steps: int = 1) -> dict[str, Batch]:
    """Pads the examples of each source, `[B_source, ...]`, to a multiple of rows with copies of the last row.

    The batches of several `steps` are `[B_source, steps, ...]`.

    Padded examples get a `weight` float32 `[rows]` that is 0 for padding. Padding counts in no loss, metric or batch
    statistic, so that a batch size gives the same numbers on any number of devices.
    """
    out = {}
    for source, rows in batch.items():
        size = len(next(iter(rows.values())))
        padding = -size % multiple
        if padding:
            rows = {k: np.concatenate([v, np.repeat(v[-1:], padding, 0)]) for k, v in rows.items()}
            weight = (np.arange(size + padding) < size).astype(np.float32)
            rows["weight"] = weight if steps == 1 else np.repeat(weight[:, None], steps, 1)
        out[source] = dict(rows)
    return out


def without_padding(rows: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same rows, with every label that a loss reads removed from padding: label, votes, targets and raters."""
    if "weight" not in rows:
        return rows
    real = rows["weight"] > 0

    def masked(name: str, x: jax.Array) -> jax.Array:
        keep = real.reshape(-1, *(1,) * (x.ndim - 1))
        if name == "label":
            return jnp.where(keep, x, -1)
        if name in ("target_mask", "rater_mask", "votes"):
            return jnp.where(keep, x, jnp.zeros((), x.dtype))
        return x

    return {name: masked(name, x) for name, x in rows.items()}


def padded_batches(examples: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Yields batches of `size` examples; the last one is padded by `pad_rows`."""
    rows: list[Batch] = []
    for row in examples:
        rows.append(row)
        if len(rows) == size:
            yield pad_rows(rows, size)
            rows = []
    if rows:
        yield pad_rows(rows, size)


def pad_rows(rows: list[Batch], size: int) -> Batch:
    """Stacks examples and pads them to `size` with copies of the last one, which get `weight` 0."""
    weight = np.zeros(size, np.float32)
    weight[: len(rows)] = 1
    rows = rows + [rows[-1]] * (size - len(rows))
    return {**{k: np.stack([row[k] for row in rows]) for k in rows[0]}, "weight": weight}
