"""Where the trunk's time goes: each distinct convolution of Inception-ResNet-v1 by itself, and the cores it uses."""

import collections
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import linen as nn

from avemo.models.inception_resnet import InceptionResNetV1
from avemo.ops.convolution import Conv
from benchmarks.speed.timing import Call, Timing, timed

BATCH, SIZE, CALLS = 16, 160, 8
Sides = tuple[Timing, Timing]  # forward, backward


def convolutions() -> collections.Counter:
    """Counts the trunk's convolutions by (input shape, kernel size, stride, padding, features)."""
    seen: collections.Counter = collections.Counter()

    def note(call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if isinstance(module, Conv) and context.method_name == "__call__":
            seen[args[0].shape, module.kernel_size, module.strides[0], module.padding, module.features] += 1
        return call(*args, **kwargs)

    network = InceptionResNetV1(whole=True)
    with nn.intercept_methods(note):
        x = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.float32)
        jax.eval_shape(lambda x: network.init(jax.random.key(0), x, False), x)
    return seen


def _mean(call: Call) -> Timing:
    """The mean of several calls: the processor's clock ticks too slowly for one."""
    call()
    whole = timed(lambda: [call() for _ in range(CALLS)])
    return Timing(whole.wall / CALLS, whole.processor / CALLS)


def _ours(shape: tuple, kernel: tuple, stride: int, padding: str, features: int) -> Sides:
    conv = Conv(features, kernel, (stride, stride), padding, use_bias=False)
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    params = jax.jit(conv.init)(jax.random.key(0), x)
    forward = jax.jit(conv.apply)
    above = jnp.ones_like(forward(params, x))
    backward = jax.jit(lambda params, x, above: jax.vjp(conv.apply, params, x)[1](above))
    calls = (
        lambda: jax.block_until_ready(forward(params, x)),
        lambda: jax.block_until_ready(backward(params, x, above)),
    )
    return _mean(calls[0]), _mean(calls[1])


def _theirs(shape: tuple, kernel: tuple, stride: int, padding: str, features: int) -> Sides:
    around = (kernel[0] // 2, kernel[1] // 2) if padding == "SAME" else (0, 0)
    conv = torch.nn.Conv2d(shape[-1], features, kernel, stride, around, bias=False)
    conv = conv.to(memory_format=torch.channels_last)
    x = torch.randn(shape).permute(0, 3, 1, 2).requires_grad_()
    y = conv(x)
    above = torch.ones_like(y)

    def forward() -> None:
        with torch.inference_mode():
            conv(x)

    return _mean(forward), _mean(functools.partial(torch.autograd.grad, y, (x, conv.weight), above, retain_graph=True))


def table() -> str:
    """Returns a Markdown table: milliseconds per call and, in brackets, the cores used; the total counts repeats."""
    lines = ["| input | kernel | stride | out | times | forward | PyTorch | backward | PyTorch |", "|---" * 9 + "|"]
    totals = np.zeros((4, 2))
    for (shape, kernel, stride, padding, features), times in convolutions().items():
        key = (shape, kernel, stride, padding, features)
        sides = [side for pair in zip(_ours(*key), _theirs(*key), strict=True) for side in pair]
        seconds = np.array([(side.wall, side.processor) for side in sides])
        totals += times * seconds
        where = f"{shape[1]}x{shape[2]}x{shape[3]} {padding.lower()}"
        lines.append(f"| {where} | {kernel[0]}x{kernel[1]} | {stride} | {features} | {times} | {_cells(seconds)} |")
    lines.append(f"| all | | | | | {_cells(totals)} |")
    return "\n".join(lines)


def _cells(seconds: np.ndarray) -> str:
    return " | ".join(f"{1000 * wall:.1f} ({processor / wall:.1f})" for wall, processor in seconds)
