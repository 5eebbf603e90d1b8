"""BatchNorm with the statistics of given data, in weights that had it folded away, without changing the function.

Published weights often come with BatchNorm folded into the kernels. In training mode such a network is normalised by
statistics that its kernels do not expect, and with its statistics frozen it learns slowly. `renormalised` gives each
BatchNorm the mean and deviation of its input on some data, and the scale and offset that undo them. In inference the
network computes the same function; in training its batches are normalised as in any other network.
"""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

from avemo.ops.batch_norm import BatchNorm

Tree = dict[str, Any]


def renormalised(network: nn.Module, variables: Tree, batches: Iterable[np.ndarray]) -> Tree:
    """Returns the variables of the same function, with the BatchNorm statistics of `batches`.

    Args:
      network: called with (inputs, train). Its BatchNorms are `avemo.ops.batch_norm.BatchNorm` and all have its
        `bn_epsilon`.
      variables: {"params", "batch_stats"}, nested dicts.
      batches: inputs `[B, …]` as the network takes them, together the data.
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
