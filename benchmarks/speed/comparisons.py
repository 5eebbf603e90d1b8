"""What `benchmarks.speed` compares: a call of ours and one of PyTorch's or audmetric's, on the same numbers."""

import functools
from collections.abc import Callable
from typing import Any

import audmetric
import jax
import jax.numpy as jnp
import numpy as np
import torch

from avemo import metrics
from avemo.losses.traces import ccc_loss
from avemo.models.compact import MobileNetV2
from avemo.models.inception_resnet import InceptionResNetV1
from avemo.models.temporal import Recurrent
from avemo.ops import parallel
from benchmarks.parity import references
from benchmarks.speed import mobilenet_torch
from benchmarks.speed.timing import Call, Comparison

Pair = tuple[Call, Call]

FEATURES, HIDDEN, LAYERS = 640, 256, 2
RECORDINGS, FRAMES, DIMENSIONS = 64, 7500, 2
LEARNING_RATE = 1e-3


def images(batch: int, size: int) -> np.ndarray:
    """Returns [batch, size, size, 3] float32, 0..255."""
    return np.random.default_rng(0).uniform(0, 255, (batch, size, size, 3)).astype(np.float32)


def channels_last(x: np.ndarray) -> torch.Tensor:
    """Returns the NHWC array as an NCHW tensor in channels_last memory, scaled to about −1..1."""
    return torch.tensor((x - 127.5) / 128).permute(0, 3, 1, 2)


def _forward(network: InceptionResNetV1 | MobileNetV2, twin: torch.nn.Module, x: np.ndarray) -> Pair:
    ours = jnp.asarray(x)
    variables = jax.jit(functools.partial(network.init, train=False))(jax.random.key(0), ours)
    run = jax.jit(functools.partial(network.apply, train=False))
    return lambda: jax.block_until_ready(run(variables, ours)), _torch_forward(twin, x)


def _torch_forward(twin: torch.nn.Module, x: np.ndarray) -> Callable[[], None]:
    twin, theirs = twin.eval().to(memory_format=torch.channels_last), channels_last(x)

    def run() -> None:
        with torch.inference_mode():
            twin(theirs)

    return run


def trunk_forward() -> Pair:
    """The whole FaceNet network in evaluation."""
    return _forward(InceptionResNetV1(whole=True), references.facenet().InceptionResnetV1(), images(16, 160))


def trunk_forward_devices() -> Pair:
    """The same with the batch split over devices made of the host's cores, as `launch.py --host_devices` does."""
    network, x = InceptionResNetV1(whole=True), images(16, 160)
    variables = parallel.replicate(jax.jit(functools.partial(network.init, train=False))(jax.random.key(0), x))

    def step(variables: dict, images: jax.Array, _: None) -> Any:
        return network.apply(variables, images, False)

    run = parallel.map_step(step, donate_state=False, gather_outputs=True)
    ours = parallel.shard_batch(x)
    torch_side = _torch_forward(references.facenet().InceptionResnetV1(), x)
    return lambda: jax.block_until_ready(run(variables, ours, None)), torch_side


def student_forward() -> Pair:
    """The compact student's MobileNetV2 in evaluation, on its 112 px faces."""
    return _forward(MobileNetV2(), mobilenet_torch.MobileNetV2(), images(32, 112))


def trunk_train() -> Pair:
    """Forward with batch statistics, backward and plain SGD; the loss is a sum weighted by fixed numbers."""
    x = images(16, 160)
    probe = np.random.default_rng(1).normal(size=(16, 512)).astype(np.float32)
    network = InceptionResNetV1(whole=True)
    ours = jnp.asarray(x)
    state = [jax.jit(functools.partial(network.init, train=False))(jax.random.key(0), ours)]

    @functools.partial(jax.jit, donate_argnums=0)
    def step(variables: dict, x: jax.Array) -> dict:
        def loss(params: dict) -> tuple[jax.Array, Any]:
            everything = {**variables, "params": params}
            y, changed = network.apply(everything, x, True, mutable=["batch_stats"])
            return (y * probe).sum(), changed

        gradients, changed = jax.grad(loss, has_aux=True)(variables["params"])
        update = jax.tree.map(lambda p, g: p - LEARNING_RATE * g, variables["params"], gradients)
        return {"params": update, "batch_stats": changed["batch_stats"]}

    def our_side() -> None:
        state[0] = jax.block_until_ready(step(state[0], ours))

    twin = references.facenet().InceptionResnetV1(dropout_prob=0.0).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(twin.parameters(), lr=LEARNING_RATE)
    theirs, above = channels_last(x), torch.tensor(probe)

    def torch_side() -> None:
        optimizer.zero_grad()
        (twin(theirs) * above).sum().backward()
        optimizer.step()

    return our_side, torch_side


def gru(batch: int, frames: int) -> Pair:
    """Two GRU layers: the mean square of the output, and its gradient with respect to parameters and input."""
    x = np.random.default_rng(0).normal(size=(batch, frames, FEATURES)).astype(np.float32)
    network, mask = Recurrent(HIDDEN, "gru", LAYERS), jnp.ones((batch, frames), bool)
    ours = jnp.asarray(x)
    params = jax.jit(network.init)(jax.random.key(0), ours, mask)

    def loss(params: dict, x: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.square(network.apply(params, x, mask)[0]).mean()

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    twin = torch.nn.GRU(FEATURES, HIDDEN, LAYERS, batch_first=True)
    theirs = torch.tensor(x, requires_grad=True)

    def torch_side() -> None:
        twin.zero_grad()
        theirs.grad = None
        twin(theirs)[0].square().mean().backward()

    return lambda: jax.block_until_ready(run(params, ours, mask)), torch_side


def _traces() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (RECORDINGS, FRAMES, DIMENSIONS)
    targets = rng.normal(size=shape).astype(np.float32)
    return (0.7 * targets + rng.normal(size=shape)).astype(np.float32), targets


def _audmetric() -> Callable[[], object]:
    predictions, targets = _traces()

    def run() -> float:
        traces = [(x[:, k], y[:, k]) for x, y in zip(predictions, targets, strict=True) for k in range(DIMENSIONS)]
        return float(np.mean([audmetric.concordance_cc(y, x) for x, y in traces]))

    return run


def loss() -> Pair:
    """The CCC loss per recording, without its gradient, because audmetric has none."""
    predictions, targets = map(jnp.asarray, _traces())
    run = jax.jit(ccc_loss)
    return lambda: jax.block_until_ready(run(predictions, targets)), _audmetric()


def metric() -> Pair:
    """The metric of a split in float64: each recording's moments, then their CCCs."""
    predictions, targets = _traces()

    def run() -> float:
        rows = zip(predictions, targets, strict=True)
        return float(metrics.ccc(np.stack([metrics.trace_moments(x, y) for x, y in rows])).mean())

    return run, _audmetric()


COMPARISONS = (
    Comparison("forward", "Inception-ResNet-v1 160 px, batch 16: forward", 0.9, 1.2, trunk_forward),
    Comparison("forward_devices", "the same, --host_devices=2", 0.9, 1.2, trunk_forward_devices),
    Comparison("train", "the same network, training step", 0.7, 1.0, trunk_train, pairs=5),
    Comparison("student", "compact student forward, batch 32", 1.0, 1.5, student_forward),
    Comparison(
        "gru_long",
        "2-layer GRU 256 on [1, 7500, 640], value and gradient",
        5.0,
        8.0,
        functools.partial(gru, 1, 7500),
        pairs=5,
    ),
    Comparison("gru_batch", "the same on [16, 300, 640]", 1.0, 1.5, functools.partial(gru, 16, 300)),
    Comparison("ccc_loss", "CCC loss on [64, 7500, 2], over audmetric", 5.0, None, loss, pairs=21),
    Comparison("ccc_metric", "CCC metric on [64, 7500, 2], over audmetric", 5.0, None, metric, pairs=21),
)
