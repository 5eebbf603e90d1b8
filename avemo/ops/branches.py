"""The parallel branches of an Inception block, their first 1×1 convolutions run as one product.

Several branches of a block begin with a 1×1 convolution of the same input. Run together, they read the input and write
its gradient once instead of once per branch, which moves a quarter less of a block's traffic in the backward pass on a
TPU (docs/cloud_tpu.md). Parameters stay those of separate convolutions.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from avemo.ops.pointwise import convolve_pointwise_by_each

# One tuple per branch, of (features, kernel height, kernel width) per convolution.
Branches = tuple[tuple[tuple[int, int, int], ...], ...]


def run_branches(
    parent: nn.Module,
    branches: Branches,
    unit: Callable[..., nn.Module],
    x: Float[Array, "b h w c"],
    train: bool,
    last: dict[str, Any] | None = None,
) -> list[jax.Array]:
    """Runs the branches on `x` as children of `parent` and returns their results in order.

    Args:
      parent: the module whose compact method calls this.
      branches: a branch of one unit is named `branch0`, one of several `branch1_0`, `branch1_1`, … as in
        facenet-pytorch.
      unit: makes a ConvNorm from features and kernel.
      x: the input of every branch.
      train: use and update batch statistics.
      last: further arguments of each branch's last unit.
    """
    last = last or {}
    names = [
        [f"branch{i}"] if len(branch) == 1 else [f"branch{i}_{j}" for j in range(len(branch))]
        for i, branch in enumerate(branches)
    ]
    convolved = _first_convolutions(parent, branches, names, x, last)
    results = []
    for branch, units in zip(branches, names, strict=True):
        y = x
        for j, ((features, height, width), name) in enumerate(zip(branch, units, strict=True)):
            layer = unit(features, (height, width), name=name, **(last if j == len(branch) - 1 else {}))
            y = layer(convolved[name], train, convolved=True) if name in convolved else layer(y, train)
        results.append(y)
    return results


def _first_convolutions(
    parent: nn.Module, branches: Branches, names: list[list[str]], x: jax.Array, last: dict[str, Any]
) -> dict[str, jax.Array]:
    """Convolves `x` by every 1×1 kernel that a branch begins with; returns the results by name."""
    if parent.is_initializing():  # the units make their kernels
        return {}
    firsts = [
        units[0]
        for branch, units in zip(branches, names, strict=True)
        if branch[0][1:] == (1, 1) and not (last and len(branch) == 1)
    ]
    kernels = tuple(parent.variables["params"][name]["conv"]["kernel"][0, 0].astype(x.dtype) for name in firsts)
    return dict(zip(firsts, convolve_pointwise_by_each(x, kernels), strict=True))
