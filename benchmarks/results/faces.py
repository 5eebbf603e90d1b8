"""Rows of the face networks on FER+: teacher, student, embedding, weights whose BatchNorm was folded away."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from avemo import metrics
from avemo.metrics import significance
from benchmarks.results import core
from benchmarks.results.core import Place, Row, Step
from media.records import CLASSES

# Pictures of FER+ are cut closer than the box that YuNet finds in them; no margin is as near as a crop comes.
CLOSE = "--margin=0"
FER_CLASSES = CLASSES[:-1]  # the last is contempt, which neither fer nor RAVDESS knows
PROTOCOL = (
    "FER+: trained on its training part less a twentieth, on which every choice was made (dev); measured on its "
    "validation part; the class with most votes, ties left out; each picture and its mirror image averaged"
)

# A twentieth of FER+'s training part is dev; its validation part is test, unseen until a row is measured.
HOLDOUT = "--holdout=0.05"


def data(place: Place) -> list[Step]:
    """FER+ as faces, as triplets, and its rows without a usable vote."""
    return [
        core.prepare(place, "fer", "ferplus", "fer", HOLDOUT),
        core.prepare(place, "fer_triplets", "ferplus", "fer_triplets", HOLDOUT),
        core.prepare(place, "fer_unlabelled", "ferplus", "fer_unlabelled"),
        core.prepare(place, "unlabelled", "grid", "grid_faces", *place.yunet()),
        core.prepare(place, "unlabelled", "ravdess_clips", "ravdess_faces", *place.yunet()),
        core.pretrained(
            place, "faceres", "faceres-deep.json", "faceres", f"--statistics={place.data('fer')}", "--image_size=48"
        ),
    ]


def teacher(place: Place) -> Step:
    """The joint teacher."""
    return trained(place, "teacher", "configs/results/teacher.py")


def trained(place: Place, name: str, config: str) -> Step:
    """A network of faces trained as `config` says, from published weights."""
    return core.train(
        place,
        name,
        config,
        f"data.faces={place.data('fer')}",
        f"data.triplets={place.data('fer_triplets')}",
        f"model.init_from={place.weights('faceres')}",
    )


def students(place: Place, seeds: Sequence[int] = core.SEEDS, variants: Sequence[str] = ("", "alone")) -> list[Step]:
    """The distilled students, and the same without a teacher."""
    unlabelled = ",".join(str(place.data(name)) for name in ("fer_unlabelled", "grid_faces", "ravdess_faces"))
    return [
        core.train(
            place,
            student_name(seed, variant),
            f"configs/results/student.py:{variant}".removesuffix(":"),
            f"teacher={place.run('teacher')}",
            f"data.faces={place.data('fer')}",
            f"data.unlabelled={unlabelled}",
            f"model.init_from={place.weights('faceres')}",
            f"seed={seed}",
        )
        for seed in seeds
        for variant in variants
    ]


def student_name(seed: int, variant: str = "") -> str:
    """Run name of a student."""
    return f"student{variant and '_' + variant}_s{seed}"


def heard(place: Place, runs: Sequence[str]) -> list[Step]:
    """Predictions of runs on FER+'s test split, mirror images averaged."""
    return [core.evaluate(place, run, "fer", "test", "--flip") for run in runs]


def predictions(place: Place, runs: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Labels `[N]` (of pictures that have one) and probabilities `[runs, N, 8]`."""
    said = [core.load(place.said(f"{run}_fer") / "test.npz") for run in runs]
    keep = said[0]["label"] >= 0
    return said[0]["label"][keep], np.stack([one["probability"][keep] for one in said])


def by_class(
    labels: np.ndarray, probability: np.ndarray, names: Sequence[str] = CLASSES
) -> dict[str, dict[str, float] | float]:
    """Recall and number of each class that occurs and the calibration error, means over runs `[runs, N, C]`."""
    predicted, occur = probability.argmax(-1), [i for i in range(len(names)) if (labels == i).any()]
    return {
        "recall": {names[i]: float((predicted[:, labels == i] == i).mean()) for i in occur},
        "numbers": {names[i]: int((labels == i).sum()) for i in occur},
        "ece": float(np.mean([metrics.class_scores(labels, p)["ece"] for p in probability])),
    }


def _fer(place: Place) -> list[Step]:
    """PyPI fer on the same pictures."""
    pictures = place.work / "peers" / "fer_test_pictures.npz"
    dump = (f"--data={place.data('fer')}", "--split=test", f"--output={pictures}")
    answer = (f"--pictures={pictures}", f"--output={place.peer('fer_stills')}")
    return [
        Step("peers/pictures", ("-m", "benchmarks.results.pictures", *dump)),
        Step("peers/fer_stills", ("-m", "benchmarks.peers.stills", *answer), peer=True),
    ]


def _teacher_row(place: Place) -> dict[str, Any]:
    labels, probability = predictions(place, ["teacher"])
    eight = significance.accuracy(labels, probability.argmax(-1))
    theirs = core.load(place.peer("fer_stills"))
    keep = theirs["label"] >= 0
    fer = theirs["probability"][keep][:, [list(theirs["classes"]).index(name) for name in FER_CLASSES]]
    known = labels < len(FER_CLASSES)
    pair = {
        "avemo, teacher": significance.accuracy(labels[known], probability[:, known, : len(FER_CLASSES)].argmax(-1)),
        "PyPI fer": significance.accuracy(labels[known], fer[known].argmax(-1)[None]),
    }
    return {
        "metric": "accuracy",
        "unit": "picture",
        "scores": [
            core.score(
                "avemo, teacher, 8 classes",
                eight,
                ours=True,
                uar=significance.uar(labels, probability.argmax(-1), len(CLASSES)).mean(),
                n=len(labels),
            ),
            *(
                core.score(f"{name}, 7 classes", score, ours=name.startswith("avemo"), n=int(known.sum()))
                for name, score in pair.items()
            ),
        ],
        "differences": [core.difference(*pair, *pair.values())],
        "checks": [core.check("reach 0.80", eight.mean() >= 0.80), core.check("aim 0.86", eight.mean() >= 0.86)],
        **by_class(labels, probability),
    }


def _student_row(place: Place) -> dict[str, Any]:
    taught, alone = ([student_name(seed, variant) for seed in core.SEEDS] for variant in ("", "alone"))
    labels, with_teacher = predictions(place, taught)
    _, without = predictions(place, alone)
    _, teacher_said = predictions(place, ["teacher"])
    found = {
        "avemo, student": significance.accuracy(labels, with_teacher.argmax(-1)),
        "the same student without a teacher": significance.accuracy(labels, without.argmax(-1)),
        "its teacher": significance.accuracy(labels, np.repeat(teacher_said.argmax(-1), len(core.SEEDS), 0)),
    }
    first, *others = found
    differences = [core.difference(first, name, found[first], found[name]) for name in others]
    gain, behind = differences
    minutes = (place.result("teacher")["seconds"] + place.result(taught[0])["seconds"]) / 60
    return {
        "metric": "accuracy",
        "unit": "picture",
        "seeds": len(core.SEEDS),
        "parameters": place.result(taught[0])["parameters"],
        "scores": [core.score(n, s, ours=n == first, seeds=[float(v) for v in s.seeds()]) for n, s in found.items()],
        "differences": differences,
        "checks": [
            core.check("3 million parameters at most", place.result(taught[0])["parameters"] <= 3_000_000),
            core.check("1.0 point above the same without a teacher", gain["value"] >= 0.01),
            core.check("interval of that above 0", gain["low"] > 0),
            core.check("aim: 2 points above it", gain["value"] >= 0.02),
            core.check("aim: within 0.5 points of the teacher", behind["value"] >= -0.005),
            core.check("teacher and one student within 90 minutes", minutes <= 90),
        ],
        "recipe_minutes": minutes,
        **by_class(labels, with_teacher),
    }


# What becomes of BatchNorm that the published weights have folded away: run name and title.
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
        core.pretrained(place, "faceres", "faceres-deep.json", "faceres_folded"),
        *(core.train(place, run, *runs[run], *where, *short) for run in _FOLDED),
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
        "scores": [core.score(name, score, ours=True) for name, score in found.items()],
        "differences": [core.difference(first, name, found[first], found[name]) for name in others],
        "checks": [],
    }


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
        said = core.load(place.said("triplets") / f"{space}.npz")
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
            core.score(n, s, ours=n == first, **by_type[space])
            for space, (n, s) in zip(_SPACES, found.items(), strict=True)
        ],
        "differences": [core.difference(first, name, found[first], found[name]) for name in others],
        "checks": [
            core.check("above all four", all(found[first].mean() > found[name].mean() for name in others)),
            core.check("aim 0.85", found[first].mean() >= 0.85),
        ],
    }


ROWS = {
    "teacher": Row(
        "teacher",
        "Expression teacher",
        PROTOCOL,
        lambda place: [*data(place), teacher(place), *heard(place, ["teacher"]), *_fer(place)],
        _teacher_row,
    ),
    "student": Row(
        "student",
        "Compact student, distilled",
        PROTOCOL + "; three seeds each",
        lambda place: [
            *data(place),
            teacher(place),
            *students(place),
            *heard(place, ["teacher", *(student_name(seed, v) for seed in core.SEEDS for v in ("", "alone"))]),
        ],
        _student_row,
    ),
    "embedding": Row(
        "embedding",
        "Expression embedding",
        "3,000 triplets of pictures of FER+'s validation part, the odd one by the distance of their votes",
        _embedding_steps,
        _embedding_row,
    ),
    "folded": Row(
        "folded",
        "Folded BatchNorm, 250 steps",
        "The teacher's recipe cut to 250 steps, from the same published weights in three ways; FER+'s dev part",
        _folded_steps,
        _folded_row,
    ),
}
