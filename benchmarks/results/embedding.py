"""The teacher's embedding of faces beside other spaces, by the share of triplets that each gets right."""

from typing import Any

import numpy as np

from avemo import metrics
from avemo.metrics import significance
from benchmarks.results import measures
from benchmarks.results.experiment import Experiment
from benchmarks.results.faces import data, teacher, trained
from benchmarks.results.steps import Place, Step

_SPACES = ("teacher", "classifier", "faceres", "untrained", "pixels")
_SPACE_TITLES = {
    "teacher": "avemo, teacher's embedding",
    "classifier": "penultimate layer, same network trained on the votes alone",
    "faceres": "faceres-deep, the face-recognition features it started from",
    "untrained": "the same network, untrained: its penultimate layer",
    "pixels": "pixels",
}


def _embedding_steps(place: Place) -> list[Step]:
    alone = trained(place, "teacher_faces", "configs/results/teacher.py:faces")
    runs = {"teacher": "teacher", "classifier": "teacher_faces", "untrained": "teacher"}
    steps = [*data(place), teacher(place), alone]
    for space in _SPACES:
        arguments = [f"--space={space}", f"--data={place.data('fer_triplets')}", f"--output={place.said('triplets')}"]
        if space in runs:
            arguments.append(f"--workdir={place.run(runs[space])}")
        if space == "faceres":
            arguments.append(f"--weights={place.weights('faceres')}")
        steps.append(Step(f"said/triplets_{space}", ("-m", "benchmarks.results.spaces", *arguments)))
    return steps


def _embedding_row(place: Place) -> dict[str, Any]:
    found, by_type = {}, {}
    for space in _SPACES:
        said = measures.load(place.said("triplets") / f"{space}.npz")
        correct = said["correct"].astype(np.int64)
        found[_SPACE_TITLES[space]] = significance.accuracy(np.ones_like(correct), correct[None])
        by_type[space] = {
            name: float(correct[said["type"] == kind].mean()) for kind, name in enumerate(metrics.TRIPLET_TYPES)
        }
    first, *others = found
    return {
        "metric": "triplet accuracy",
        "unit": "triplet",
        "scores": [
            measures.score(n, s, ours=n == first, **by_type[space])
            for space, (n, s) in zip(_SPACES, found.items(), strict=True)
        ],
        "differences": [measures.difference(first, name, found[first], found[name]) for name in others],
        "checks": [
            measures.check("above all four", all(found[first].mean() > found[name].mean() for name in others)),
            measures.check("aim 0.85", found[first].mean() >= 0.85),
        ],
    }


EXPERIMENTS = {
    "embedding": Experiment(
        "embedding",
        "Expression embedding",
        "3,000 triplets of pictures from FER+'s validation part; the distance between votes tells the odd one out",
        _embedding_steps,
        _embedding_row,
    ),
}
