"""Published weights with BatchNorm folded away: three ways to start from them."""

from typing import Any

from avemo.metrics import significance
from benchmarks.results import measures
from benchmarks.results.experiment import Experiment
from benchmarks.results.faces import data
from benchmarks.results.steps import Place, Step, pretrained, train

# What to do about BatchNorm, which the published weights have folded away: run name and title.
_FOLDED = {
    "folded_given_back": "statistics of FER+'s faces given back, then trained",
    "folded_frozen": "folded, statistics left as they are",
    "folded_trained": "folded, statistics trained",
}


def _folded_steps(place: Place) -> list[Step]:
    short = ("steps=250", "eval_every=250")
    given, folded = f"model.init_from={place.weights('faceres')}", f"model.init_from={place.weights('faceres_folded')}"
    config = "configs/results/teacher.py"
    runs = {
        "folded_given_back": (config, given),
        "folded_frozen": (f"{config}:frozen", folded),
        "folded_trained": (config, folded),
    }
    where = (f"data.faces={place.data('fer')}", f"data.triplets={place.data('fer_triplets')}")
    return [
        *data(place),
        pretrained(place, "faceres", "faceres-deep.json", "faceres_folded"),
        *(train(place, run, *runs[run], *where, *short) for run in _FOLDED),
    ]


def _folded_row(place: Place) -> dict[str, Any]:
    found = {}
    for run, title in _FOLDED.items():
        said = place.predictions(run, "dev")
        keep = said["label"] >= 0
        found[title] = significance.accuracy(said["label"][keep], said["probability"][keep].argmax(-1)[None])
    first, *others = found
    return {
        "metric": "accuracy on dev",
        "unit": "picture",
        "scores": [measures.score(name, score, ours=True) for name, score in found.items()],
        "differences": [measures.difference(first, name, found[first], found[name]) for name in others],
        "checks": [],
    }


EXPERIMENTS = {
    "folded": Experiment(
        "folded",
        "Folded BatchNorm, 250 steps",
        "The teacher's recipe cut to 250 steps, started from the same published weights in three ways; FER+'s dev part",
        _folded_steps,
        _folded_row,
    ),
}
