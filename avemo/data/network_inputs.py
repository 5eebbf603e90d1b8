"""A sample of a network's inputs, drawn from a data folder without its training pipeline."""

import os
from collections.abc import Iterator

import numpy as np

from avemo.data import examples, mixture
from media.errors import UserError
from media.images import resize

_BATCHES, _ROWS = 16, 64


def network_inputs(folder: str | os.PathLike, shape: tuple[int, ...], image_size: int) -> Iterator[np.ndarray]:
    """Yields batches of a network's inputs from 1024 records, evenly spread over the train split, or else the first.

    Args:
      folder: prepared faces, or clips for an audio network.
      shape: shape of one input: (1, H, W, 3) for pictures, (1, 96, 64) for log-mel windows.
      image_size: side of the pictures, px.

    Raises:
      UserError: the data have no such inputs.
    """
    splits = mixture.splits(str(folder))
    data = mixture.open_split(str(folder), "train" if "train" in splits else splits[0])
    pictures, field = len(shape) == 4, "image" if len(shape) == 4 else "log_mel"
    if field not in data[0]:
        raise UserError(f"--statistics={folder} has no field {field!r} (it has {', '.join(sorted(data[0]))}).")
    chosen = np.linspace(0, len(data) - 1, min(len(data), _BATCHES * _ROWS)).astype(int)
    for numbers in np.array_split(chosen, max(1, len(chosen) // _ROWS)):
        records = [data[int(number)] for number in numbers]
        if pictures:
            yield np.stack([resize(record["image"].decode(0), image_size) for record in records])
        else:
            middles = [max(0, (len(record["log_mel"]) - examples.MEL_ROWS) // 2) for record in records]
            windows = [r["log_mel"][m : m + examples.MEL_ROWS] for r, m in zip(records, middles, strict=True)]
            yield np.stack([w for w in windows if len(w) == examples.MEL_ROWS]).astype(np.float32)
