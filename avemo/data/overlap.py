"""Long recordings in overlapping windows, whose outputs are added with weights that sum to 1."""

from collections.abc import Mapping, Sequence

import numpy as np

from media.errors import UserError


def starts(frames: int, length: int, hop: int) -> list[int]:
    """First frames of the windows of `length` that cover a recording, one every `hop` (0: half a window).

    The last window ends with the recording. With `length` 0, or not above it, one window is the whole recording.
    """
    if not length or frames <= length:
        return [0]
    hop = hop or max(1, length // 2)
    if hop > length:
        raise UserError(f"data.eval_hop={hop} leaves frames out between windows of data.eval_length={length}.")
    return [*range(0, frames - length, hop), frames - length]


def add(outputs: Sequence[Mapping[str, np.ndarray]], starts: Sequence[int]) -> dict[str, np.ndarray]:
    """Joins the outputs `[L, ...]` of the windows that begin at `starts` to one `[T, ...]`.

    A window's weight falls linearly from its middle to its ends, so that no seam shows.
    """
    if len(outputs) == 1:
        return dict(outputs[0])
    length = len(next(iter(outputs[0].values())))
    # Above 0 at the ends: a frame may lie in one window alone.
    weight = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)).astype(np.float32)
    total = np.zeros(starts[-1] + length, np.float32)
    for start in starts:
        total[start : start + length] += weight
    joined = {}
    for name, first in outputs[0].items():
        whole = np.zeros((len(total), *first.shape[1:]), np.float32)
        for output, start in zip(outputs, starts, strict=True):
            share = weight / total[start : start + length]
            whole[start : start + length] += share.reshape(-1, *[1] * (first.ndim - 1)) * output[name]
        joined[name] = whole
    return joined
