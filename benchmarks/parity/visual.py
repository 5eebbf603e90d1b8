"""Parity of the visual networks with facenet-pytorch, torchvision and the graph of the TF.js face net.

`python -m benchmarks.parity.visual` writes the references' outputs to tests/golden, so that the test suite checks the
same without PyTorch.
"""

import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avemo.models import pretrained
from avemo.models.densenet import MEAN, STD, DenseNet
from avemo.models.inception_resnet import InceptionResNetV1
from avemo.models.pretrained import networks
from benchmarks.parity import weights
from benchmarks.parity.table import Row, difference
from benchmarks.parity.visual_cases import GOLDEN, SEED, Case, Result, faces, probe

OUTPUT, GRADIENT = 1e-4, 1e-3
GOLDEN_VALUES = 24


def facenet_case(images: np.ndarray, repeats: tuple[int, int, int] = (5, 10, 5)) -> Case:
    """The whole Inception-ResNet-v1, compared stage by stage; golden files use fewer repeats."""
    return Case(
        name="Inception-ResNet-v1" if repeats == (5, 10, 5) else "Inception-ResNet-v1, short",
        kind="facenet",
        numbers={"repeats": repeats},
        ours=InceptionResNetV1(whole=True, repeats_35=repeats[0], repeats_17=repeats[1], repeats_8=repeats[2]),
        place=networks.place_facenet,
        images=images,
        scale=lambda x: (x - 127.5) / 128.0,
        outputs=lambda result, sown: {**sown["stages"][0], "embedding": result},
    )


def densenet_case(images: np.ndarray, layers: tuple[int, ...] = (6, 12, 48, 32), growth: int = 32) -> Case:
    """DenseNet up to its last ReLU, by default DenseNet-201; the stem has twice the growth rate's channels."""
    return Case(
        name="DenseNet-201" if sum(layers) == 98 else "DenseNet, small",
        kind="densenet",
        numbers={"growth_rate": growth, "block_config": layers, "num_init_features": 2 * growth},
        ours=DenseNet(layers=layers, width=growth / 32),
        place=networks.place_densenet,
        images=images,
        scale=lambda x: (x - np.array(MEAN)) / np.array(STD),
        outputs=lambda result, sown: {"features": result},
    )


def small_cases() -> dict[str, Case]:
    """The cases in the golden file, by the prefix of their arrays' names."""
    return {
        "facenet": facenet_case(faces(4, 112), repeats=(1, 1, 1)),
        "densenet": densenet_case(faces(4, 96), layers=(2, 2, 2, 2), growth=8),
    }


def run_ours(case: Case, train: bool, dtype: type = np.float32, gradients: bool = False) -> Result:
    """Returns our outputs, the gradients of the probe loss (empty unless `gradients`) and the updated statistics."""
    module = case.ours.clone(dtype=dtype)
    variables = weights.variables(module, jnp.zeros((1, *case.images.shape[1:])), seed=SEED)

    def loss(params: Any, stats: Any, images: jax.Array) -> Any:
        result, changed = module.apply(
            {"params": params, "batch_stats": stats}, images, train, mutable=["batch_stats", "intermediates"]
        )
        outputs = case.outputs(result, changed.get("intermediates"))
        return jnp.sum(result * jnp.asarray(probe(result.shape), result.dtype)), (outputs, changed["batch_stats"])

    run = jax.jit(jax.grad(loss, has_aux=True) if gradients else lambda *args: ({}, loss(*args)[1]))
    slopes, (outputs, stats) = run(variables["params"], variables["batch_stats"], case.images)
    return {k: np.asarray(v) for k, v in outputs.items()}, dict(_flat(slopes)), dict(_flat(stats))


def _flat(tree: Any) -> Iterator[tuple[str, np.ndarray]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield "/".join(str(key.key) for key in path), np.asarray(leaf)


def output_rows(case: Case, train: bool) -> list[Row]:
    """Returns one row per stage and, in training, one for the running statistics; float32."""
    from benchmarks.parity import visual_references

    ours, theirs = run_ours(case, train), visual_references.run(case, train)
    version, mode = visual_references.version(case), "train" if train else "eval"
    table = [
        Row(f"{case.name} {stage}, {mode}", version, difference(ours[0][stage], value), OUTPUT)
        for stage, value in theirs[0].items()
    ]
    if train:
        worst = max(difference(ours[2][k], v) for k, v in theirs[2].items() if k.endswith("mean"))
        table.append(Row(f"{case.name} running means after a step", version, worst, OUTPUT))
    return table


def gradient_row(case: Case, train: bool) -> Row:
    """Returns the row of the parameter whose gradient differs most, in float64.

    In float32, rounding moves some of the ten million ReLU inputs across 0. In any two implementations that changes the
    gradient of a small feature map's parameters by several percent.
    """
    from benchmarks.parity import visual_references

    with jax.enable_x64(True):
        ours = run_ours(case, train, np.float64, gradients=True)[1]
    theirs = visual_references.run(case, train, np.float64)[1]
    if set(ours) != set(theirs):
        raise ValueError(f"parameters differ: {sorted(set(ours) ^ set(theirs))[:5]}")
    floor = gradient_floor(theirs)
    worst = max(theirs, key=lambda name: difference(ours[name], theirs[name], floor))
    value = difference(ours[worst], theirs[worst], floor)
    note = f"float64, so that rounding flips no ReLU; {len(theirs)} tensors, worst {worst}"
    return Row(
        f"{case.name} gradients, {'train' if train else 'eval'}", visual_references.version(case), value, GRADIENT, note
    )


def gradient_floor(gradients: dict[str, np.ndarray]) -> float:
    """Returns the scale below which a gradient counts as 0, as that of a bias before BatchNorm is in training."""
    return 1e-6 * max(np.abs(value).max() for value in gradients.values())


def conversion_rows() -> list[Row]:
    """Converts and loads a file that PyTorch wrote, in each of its two formats."""
    from benchmarks.parity import visual_references

    case = facenet_case(faces(2, 112))
    theirs = visual_references.run(case, train=False)[0]["embedding"]
    table = []
    for kind in ("zip", "pre-1.6"):
        with tempfile.TemporaryDirectory() as folder:
            file, converted = Path(folder) / "facenet.pt", Path(folder) / "converted"
            visual_references.save(case, file, zipped=kind == "zip")
            pretrained.convert("facenet_vggface2", file, converted)
            loaded = pretrained.load_pretrained(converted)
        apply = jax.jit(lambda v, x: case.ours.apply(v, x, False))
        ours = apply({"params": loaded.params, "batch_stats": loaded.batch_stats}, case.images)
        name = f"Inception-ResNet-v1 embedding, {kind} .pt file converted"
        table.append(Row(name, visual_references.version(case), difference(ours, theirs), OUTPUT))
    return table


def rows() -> list[Row]:
    """Returns all rows of the visual networks."""
    from benchmarks.parity import face_net

    # The small DenseNet runs the same code; XLA:CPU takes minutes to compile the gradient of DenseNet-201.
    small = small_cases()["densenet"]
    table = []
    for train in (False, True):
        table += output_rows(facenet_case(faces(8, 160)), train)
        table.append(gradient_row(facenet_case(faces(4, 112)), train))
        table += output_rows(densenet_case(faces(4, 96)), train)
        table.append(gradient_row(small, train))
    return [*table, *conversion_rows(), *face_net.rows()]


def sample(name: str, value: np.ndarray) -> np.ndarray:
    """Returns a few elements of an array, at positions drawn from its name, then its largest absolute value."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    places = rng.integers(0, value.size, min(GOLDEN_VALUES, value.size))
    return np.append(np.ravel(value)[places], np.abs(value).max())


def write_goldens() -> None:
    """Writes samples of the references' outputs and of their gradients in training mode."""
    from benchmarks.parity import visual_references

    arrays = {}
    for name, case in small_cases().items():
        for mode, dtype in (("eval", np.float32), ("train", np.float64)):
            outputs, gradients, _ = visual_references.run(case, mode == "train", dtype)
            arrays |= {f"{name}/{mode}/{stage}": sample(stage, value) for stage, value in outputs.items()}
        arrays |= {f"{name}/gradient/{path}": sample(path, value) for path, value in gradients.items()}
    np.savez_compressed(GOLDEN, **{key: value.astype(np.float32) for key, value in arrays.items()})


if __name__ == "__main__":
    write_goldens()
