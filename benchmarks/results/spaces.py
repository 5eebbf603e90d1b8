"""Which triplets a space of faces gets right: those whose similar pair is closer than either is to the odd one.

    python -m benchmarks.results.spaces --space=teacher --workdir=RUN --data=DATA/fer_triplets --output=FOLDER

Spaces: `teacher`, a run's embedding; `classifier`, a run's penultimate layer; `untrained`, the same layer before
training; `faceres`, the global mean of the published face net's trunk (`--weights`); `pixels`. All but the first are
normalised to the unit sphere; distances are Euclidean.
"""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from avemo import metrics
from avemo.data import shards
from avemo.models import expression, pretrained
from avemo.models.pretrained import networks
from avemo.runs import checkpoints
from media.images import resize

SPACES = ("teacher", "classifier", "untrained", "faceres", "pixels")
_BATCH = 256


def function(space: str, workdir: str, weights: str) -> tuple[int, Callable[[np.ndarray], np.ndarray]]:
    """The side S of the space's pictures, and the function from uint8 `[N, S, S, 3]` to the space `[N, D]`."""
    if space == "pixels":
        return 48, lambda images: images.reshape(len(images), -1).astype(np.float32)
    network: Any
    if space == "faceres":
        found, network = pretrained.load_pretrained(weights), networks.SOURCES["faceres"].network()
        variables = {"params": found.params, "batch_stats": found.batch_stats}
        return 48, jax.jit(lambda images: network.apply(variables, images, False).mean((1, 2)))
    config, _, variables = checkpoints.load(workdir)
    network, size = expression.build(config.model), int(config.model.image_size)
    output = "embedding" if space == "teacher" else "descriptor"
    if space == "untrained":
        example = np.zeros((1, size, size, 3), np.uint8)
        variables = jax.jit(lambda key: network.init(key, example, train=False))(jax.random.key(0))
        variables = {name: variables[name] for name in ("params", "batch_stats")}
    return size, jax.jit(lambda images: network.apply(variables, images, train=False)[output])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", required=True, choices=SPACES)
    parser.add_argument("--data", required=True, help="prepared triplets")
    parser.add_argument("--split", default="test")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="folder for SPACE.npz: correct, type")
    parser.add_argument("--workdir", default="", help="run folder of the network")
    parser.add_argument("--weights", default="", help="converted faceres weights")
    arguments = parser.parse_args()
    size, embed = function(arguments.space, arguments.workdir, arguments.weights)
    data = shards.Shards(arguments.data, arguments.split)
    records = [data[number] for number in range(len(data))]
    odd = np.array([record["odd"] for record in records])
    images = np.stack([resize(r["images"].decode(i), size) for r in records for i in range(3)])
    rows = []
    for begin in range(0, len(images), _BATCH):
        part = images[begin : begin + _BATCH]
        padded = np.pad(part, [(0, _BATCH - len(part))] + [(0, 0)] * 3)
        rows.append(np.asarray(embed(padded), np.float64)[: len(part)])
    points = np.concatenate(rows)
    if arguments.space != "teacher":
        points /= np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-12)
    points = points.reshape(len(records), 3, -1)
    # One triplet at a time, with the same definition of a correct triplet as every other score.
    kinds = np.zeros(1, np.int64)
    correct = [metrics.triplet_counts(p[None], kinds, o[None])[0, 0] for p, o in zip(points, odd, strict=True)]
    arguments.output.mkdir(parents=True, exist_ok=True)
    kind = np.array([record["type"] for record in records])
    np.savez(arguments.output / f"{arguments.space}.npz", correct=np.array(correct, bool), type=kind)


if __name__ == "__main__":
    main()
