"""Parity of the visual networks: facenet-pytorch, torchvision, and the TF.js face net's own graph."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import linen as nn

from avemo.models import pretrained
from avemo.models.densenet import MEAN, STD, DenseNet
from avemo.models.inception_resnet import InceptionResNetV1
from avemo.models.pretrained import networks
from benchmarks.parity import face_net, references, weights
from benchmarks.parity.table import Row, difference

OUTPUT, GRADIENT = 1e-4, 1e-3
SEED = 0

# All stages of facenet-pytorch's forward pass, by its and our name.
STAGES = (
    "conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a", "conv2d_4b", "repeat_1", "mixed_6a",
    "repeat_2", "mixed_7a", "repeat_3", "block8", "avgpool_1a", "last_linear", "last_bn",
)  # fmt: skip


def faces(count: int, size: int) -> np.ndarray:
    """Returns [count, size, size, 3] float32 images of smooth noise, 0..255, from a fixed seed."""
    rng = np.random.default_rng(SEED)
    coarse = rng.uniform(0, 255, (count, 8, 8, 3))
    fine = np.repeat(np.repeat(coarse, -(-size // 8), 1), -(-size // 8), 2)[:, :size, :size]
    return np.clip(fine + rng.normal(0, 20, fine.shape), 0, 255).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Case:
    """One network of ours and of PyTorch's, with the same drawn weights.

    Attributes:
      ours: module; `theirs`: module in NCHW; `place`: the converter's rule between their names.
      scale: images 0..255 to what `theirs` expects.
      our_outputs, their_outputs: name to array, from our result and intermediates, and from their input; the last one
        is the network's result.
    """

    name: str
    reference: str
    ours: nn.Module
    theirs: torch.nn.Module
    place: Callable[[str, np.ndarray], Any]
    scale: Callable[[np.ndarray], np.ndarray]
    images: np.ndarray
    their_outputs: Callable[[torch.Tensor], dict[str, torch.Tensor]]
    our_outputs: Callable[[Any, Any], dict[str, jax.Array]]


def facenet_case(images: np.ndarray) -> Case:
    """facenet-pytorch's whole network, every stage."""
    theirs = references.facenet().InceptionResnetV1(dropout_prob=0.0)

    def their_outputs(x: torch.Tensor) -> dict[str, torch.Tensor]:
        seen: dict[str, torch.Tensor] = {}
        hooks = [
            getattr(theirs, stage).register_forward_hook(functools.partial(_keep, seen, stage)) for stage in STAGES
        ]
        result = theirs(x)
        for hook in hooks:
            hook.remove()
        seen["avgpool_1a"] = seen["avgpool_1a"].flatten(1)
        return {**seen, "embedding": result}

    return Case(
        name="Inception-ResNet-v1",
        reference=references.version("facenet-pytorch"),
        ours=InceptionResNetV1(whole=True),
        theirs=theirs,
        place=networks.place_facenet,
        scale=lambda x: (x - 127.5) / 128.0,
        images=images,
        their_outputs=their_outputs,
        our_outputs=lambda result, sown: {**sown["stages"][0], "embedding": result},
    )


def densenet_case(
    images: np.ndarray, layers: tuple[int, ...] = (6, 12, 48, 32), growth: int = 32, stem: int = 64
) -> Case:
    """torchvision's DenseNet to the last ReLU; DenseNet-201 by default."""
    theirs = references.densenet().DenseNet(growth_rate=growth, block_config=layers, num_init_features=stem)
    return Case(
        name="DenseNet-201" if sum(layers) == 98 else "DenseNet, small",
        reference=references.version("torchvision"),
        ours=DenseNet(layers=layers, growth=32, width=growth / 32),
        theirs=theirs,
        place=networks.place_densenet,
        scale=lambda x: ((x - np.array(MEAN)) / np.array(STD)).astype(np.float32),
        images=images,
        their_outputs=lambda x: {"features": torch.nn.functional.relu(theirs.features(x))},
        our_outputs=lambda result, sown: {"features": result},
    )


def _keep(seen: dict[str, torch.Tensor], stage: str, module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
    seen[stage] = output


Result = tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]


def run_theirs(case: Case, train: bool, dtype: type = np.float32) -> Result:
    """Returns their outputs, gradients of the probe loss by our parameter path, and statistics after the pass."""
    theirs = case.theirs.train(train).to(torch.from_numpy(np.zeros(0, dtype)).dtype)
    state = weights.torch_state(theirs.state_dict(), case.place, SEED)
    references.load(theirs, state)
    theirs.zero_grad()
    outputs = case.their_outputs(references.images(case.scale(case.images).astype(dtype)))
    last = list(outputs.values())[-1]
    probe = torch.tensor(_probe(references.channels_last(last).shape).astype(dtype))
    (last * (probe.movedim(-1, 1) if last.ndim == 4 else probe)).sum().backward()
    gradients, statistics = {}, {}
    for name, parameter in theirs.named_parameters():
        if parameter.grad is not None:
            path, value = case.place(name, parameter.grad.numpy())
            gradients["/".join(path[1:])] = value
    for name, value in theirs.state_dict().items():
        if "running" in name:
            path, value = case.place(name, value.numpy())
            statistics["/".join(path[1:])] = value
    return {name: references.channels_last(value) for name, value in outputs.items()}, gradients, statistics


def _probe(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(SEED + 1).standard_normal(shape).astype(np.float32)


def run_ours(case: Case, train: bool, dtype: type = np.float32, gradients: bool = False) -> Result:
    """Returns the same of ours; the gradients only where asked for."""
    module = case.ours.clone(dtype=dtype)
    variables = weights.variables(module, jnp.zeros((1, *case.images.shape[1:])), seed=SEED)

    def loss(params: Any, stats: Any, images: jax.Array) -> Any:
        result, changed = module.apply(
            {"params": params, "batch_stats": stats}, images, train, mutable=["batch_stats", "intermediates"]
        )
        outputs = case.our_outputs(result, changed.get("intermediates"))
        last = list(outputs.values())[-1]
        return jnp.sum(last * _probe(last.shape)), (outputs, changed["batch_stats"])

    run = jax.jit(jax.grad(loss, has_aux=True) if gradients else lambda *args: ({}, loss(*args)[1]))
    slopes, (outputs, stats) = run(variables["params"], variables["batch_stats"], case.images)
    return {k: np.asarray(v) for k, v in outputs.items()}, dict(_flat(slopes)), dict(_flat(stats))


def _flat(tree: Any) -> Iterator[tuple[str, np.ndarray]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield "/".join(str(key.key) for key in path), np.asarray(leaf)


def output_rows(case: Case, train: bool) -> list[Row]:
    """Returns a row a stage and, in training, one for the running statistics; float32."""
    ours, theirs = run_ours(case, train), run_theirs(case, train)
    mode = "train" if train else "eval"
    table = [
        Row(f"{case.name} {stage}, {mode}", case.reference, difference(ours[0][stage], value), OUTPUT)
        for stage, value in theirs[0].items()
    ]
    if train:
        worst = max(difference(ours[2][k], v) for k, v in theirs[2].items() if k.endswith("mean"))
        table.append(Row(f"{case.name} running means after a step", case.reference, worst, OUTPUT))
    return table


def gradient_row(case: Case, train: bool) -> Row:
    """Returns the row of the parameter whose gradient differs most.

    In float64: in float32 some of the ten million ReLU inputs lie within rounding of 0 and switch sides, which moves the
    gradient of a tensor fed by few places by percents, in any two implementations.
    """
    with jax.enable_x64(True):
        ours = run_ours(case, train, np.float64, gradients=True)[1]
    theirs = run_theirs(case, train, np.float64)[1]
    if set(ours) != set(theirs):
        raise ValueError(f"parameters differ: {sorted(set(ours) ^ set(theirs))[:5]}")
    floor = 1e-6 * max(np.abs(value).max() for value in theirs.values())
    worst = max(theirs, key=lambda name: difference(ours[name], theirs[name], floor))
    mode = "train" if train else "eval"
    note = f"float64, so that no ReLU switches by rounding; {len(theirs)} tensors, worst {worst}"
    value = difference(ours[worst], theirs[worst], floor)
    return Row(f"{case.name} gradients, {mode}", case.reference, value, GRADIENT, note)


def conversion_rows() -> list[Row]:
    """A file that PyTorch writes, in both its formats, through the converter and the loader."""
    case = facenet_case(faces(2, 112))
    theirs = run_theirs(case, train=False)[0]["embedding"]
    rows = []
    for zipped in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "facenet.pt"
            torch.save(case.theirs.state_dict(), file, _use_new_zipfile_serialization=zipped)
            pretrained.convert("facenet_vggface2", file, Path(folder) / "converted")
            loaded = pretrained.load_pretrained(Path(folder) / "converted")
        apply = jax.jit(lambda v, x: case.ours.apply(v, x, False))
        ours = apply({"params": loaded.params, "batch_stats": loaded.batch_stats}, case.images)
        kind = "zip" if zipped else "pre-1.6"
        rows.append(
            Row(
                f"Inception-ResNet-v1 embedding, {kind} .pt converted", case.reference, difference(ours, theirs), OUTPUT
            )
        )
    return rows


def rows() -> list[Row]:
    """Returns all rows of the visual networks."""
    torch.manual_seed(0)
    # XLA:CPU compiles the gradient of DenseNet-201's 98 concatenations for minutes; the small one has the same code.
    small = densenet_case(faces(4, 96), layers=(2, 2, 2, 2), growth=8, stem=16)
    table = []
    for train in (False, True):
        table += output_rows(facenet_case(faces(8, 160)), train)
        table.append(gradient_row(facenet_case(faces(4, 112)), train))
        table += output_rows(densenet_case(faces(4, 96)), train)
        table.append(gradient_row(small, train))
    return [*table, *conversion_rows(), *face_net.rows()]
