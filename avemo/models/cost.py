"""The cost of running a network, counted from its shapes."""

import math

import jax
from flax import linen as nn


def count_macs(module: nn.Module, images: jax.ShapeDtypeStruct) -> int:
    """Returns the multiply-adds (MACs) in the convolutions and dense layers of one call `module(images, False)`.

    One MAC is two floating-point operations: MFLOP = 2 · MACs / 1e6. Papers often call MACs "FLOPs". As in papers,
    BatchNorm, activations and pools are left out; on the compact student they add 5 % by XLA's count. Each kernel
    counts as its size times the number of positions in its module's output.
    """
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), images)
    _, captured = jax.eval_shape(
        lambda v, x: module.apply(v, x, False, capture_intermediates=True, mutable=["intermediates"]), variables, images
    )

    def count(params: dict, outputs: dict) -> int:
        total = 0
        if "kernel" in params:
            positions = math.prod(outputs["__call__"][0].shape[:-1])
            total += math.prod(params["kernel"].shape) * positions
        return total + sum(count(value, outputs[key]) for key, value in params.items() if isinstance(value, dict))

    return count(variables["params"], captured["intermediates"])
