"""BatchNorm with the statistics of data at hand, in weights that had it folded away, without changing the function.

Published weights often come with BatchNorm folded into the kernels. In training mode such a network would be normalised
by statistics that its kernels do not expect, and with its statistics frozen it learns slowly. `renormalised` gives each
BatchNorm the mean and deviation that its input has on some data, and scale and offset that undo them: in inference the
network computes what it did, in training its batches are normalised as those of any network.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

from avemo.data import examples, mixture
from avemo.ops.batch_norm import BatchNorm
from media.errors import UserError
from media.images import resize

Tree = dict[str, Any]
_BATCHES, _ROWS = 16, 64


def inputs(folder: str | os.PathLike, shape: tuple[int, ...], image_size: int) -> Iterator[np.ndarray]:
    """Batches of a network's inputs from 1024 records, evenly spread over the train split (or the first one there is).

    Args:
      folder: prepared faces, or clips for an audio network.
      shape: of one input: (1, H, W, 3) of a network for pictures, (1, 96, 64) of one for log-mel windows.
      image_size: side of the pictures, px.

    Raises:
      UserError: data of another kind.
    """
    splits = mixture.splits(str(folder))
    data = mixture.open_split(str(folder), "train" if "train" in splits else splits[0])
    pictures, field = len(shape) == 4, "image" if len(shape) == 4 else "log_mel"
    if field not in data[0]:
        raise UserError(f"--statistics={folder} has no field {field!r} (it has {', '.join(sorted(data[0]))}).")
    chosen = np.linspace(0, len(data) - 1, min(len(data), _BATCHES * _ROWS)).astype(int)
    for part in np.array_split(chosen, max(1, len(chosen) // _ROWS)):
        records = [data[int(number)] for number in part]
        if pictures:
            yield np.stack([resize(record["image"].decode(0), image_size) for record in records])
        else:
            middles = [max(0, (len(record["log_mel"]) - examples.MEL_ROWS) // 2) for record in records]
            windows = [r["log_mel"][m : m + examples.MEL_ROWS] for r, m in zip(records, middles, strict=True)]
            yield np.stack([w for w in windows if len(w) == examples.MEL_ROWS]).astype(np.float32)


def renormalised(network: nn.Module, variables: Tree, batches: Iterable[np.ndarray]) -> Tree:
    """The variables of the same function, with BatchNorm statistics of `batches`.

    Args:
      network: called with (inputs, train); its BatchNorms are `avemo.ops.batch_norm.BatchNorm`, all with its
        `bn_epsilon`.
      variables: {"params", "batch_stats"}, nested dicts.
      batches: inputs `[B, …]`, each as the network takes them; all together are the data.
    """

    @jax.jit
    def moments(inputs: jax.Array) -> Tree:
        outputs = network.apply(
            variables,
            inputs,
            False,
            mutable=["intermediates"],
            capture_intermediates=lambda module, method: isinstance(module, BatchNorm) and method == "__call__",
        )[1]["intermediates"]
        flat = traverse_util.flatten_dict(outputs)
        norms = {path[:-1]: value[0] for path, value in flat.items() if path[-1] == "__call__"}
        axes = {path: tuple(range(value.ndim - 1)) for path, value in norms.items()}
        return {path: (value.mean(axes[path]), value.var(axes[path])) for path, value in norms.items()}

    found: dict[tuple[str, ...], list[Any]] = {}
    for inputs in batches:
        for path, value in jax.device_get(moments(inputs)).items():
            found.setdefault(path, []).append(value)
    params, statistics = (traverse_util.flatten_dict(variables[name]) for name in ("params", "batch_stats"))
    for path, values in found.items():
        means, spreads = (np.stack([np.float64(v[i]) for v in values]) for i in (0, 1))
        mean, var = means.mean(0), spreads.mean(0) + means.var(0)  # of what BatchNorm returned, over all batches
        scale, bias = (np.float64(params[(*path, leaf)]) for leaf in ("scale", "bias"))
        # y = gain · (x − mean) + bias with the old statistics, so the input's own follow from those of y.
        gain = scale / np.sqrt(np.float64(statistics[(*path, "var")]) + network.bn_epsilon)
        safe = np.where(gain == 0, 1, gain)
        statistics[(*path, "mean")] = _float32(statistics[(*path, "mean")] + np.where(gain == 0, 0, mean - bias) / safe)
        statistics[(*path, "var")] = _float32(np.where(gain == 0, 0, var) / safe**2)
        params[(*path, "scale")] = _float32(gain * np.sqrt(np.float64(statistics[(*path, "var")]) + network.bn_epsilon))
        params[(*path, "bias")] = _float32(mean)
    nested = traverse_util.unflatten_dict
    return {**variables, "params": nested(params), "batch_stats": nested(statistics)}


def _float32(value: np.ndarray) -> np.ndarray:
    return np.asarray(value, np.float32)
