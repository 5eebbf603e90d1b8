"""Face networks on RAVDESS, whose labels they never saw: unchanged, and fitted to the takes without labels."""

from typing import Any

import numpy as np

from avemo.data import shards
from avemo.metrics import significance
from avemo.tasks.frame_pooling import without_person
from benchmarks.results import faces, fusion, measures
from benchmarks.results.experiment import Experiment
from benchmarks.results.steps import SEEDS, Place, Step, evaluate, prepare
from data_prep.corpora.ravdess import EMOTIONS

ADAPTATIONS = {
    "": "",
    "_person": "person",
    "_statistics": "statistics",
    "_both": "statistics,person",
}
_SAYS = {
    "_person": ", less the actor's average",
    "_statistics": ", BatchNorm of the takes",
    "_both": ", both",
}
ROBUST = "teacher_robust"
_TITLES = {"teacher": "avemo, teacher", ROBUST: "avemo, teacher for other corpora"}
_FER, _FER_PERSON = "PyPI fer", "PyPI fer, less the actor's average"


def _steps(place: Place) -> list[Step]:
    students = [faces.student_name(seed) for seed in SEEDS]
    # All takes as one test split, cropped as tightly as FER+.
    flags = ("--split=speaker", "--test_speakers=1", *place.yunet(), faces.CLOSE)
    return [
        *faces.data(place),
        faces.teacher(place),
        faces.trained(place, ROBUST, "configs/results/teacher.py:robust"),
        *faces.students(place, variants=("",)),
        prepare(place, "ravdess", "ravdess_takes", "takes", *flags),
        *(_evaluation(place, run, suffix) for run in _TITLES for suffix in ADAPTATIONS),
        *(_evaluation(place, run, suffix) for run in students for suffix in ("", "_both")),
        *faces.heard(place, [ROBUST]),
        *fusion.peers(place),
    ]


def _evaluation(place: Place, run: str, suffix: str) -> Step:
    kind = ADAPTATIONS[suffix]
    return evaluate(place, run, "takes", "test", "--flip", *([f"--adapt={kind}"] if kind else []), suffix=suffix)


def _shares(place: Place) -> np.ndarray:
    """Each class's share of the votes in the training part, float64 `[8]`."""
    data = shards.Shards(str(place.data("fer")), "train")
    votes = sum(data.fields(number, ["votes"])[0].astype(np.float64) for number in range(len(data)))
    return votes / votes.sum()


def _said(place: Place, run: str, suffix: str = "") -> dict[str, np.ndarray]:
    return measures.load(place.said(f"{run}_takes{suffix}") / "test.npz")


def _measure(place: Place) -> dict[str, Any]:
    first = _said(place, "teacher")
    recordings, labels = first["recording"], first["label"]
    classes = faces.FER_CLASSES
    theirs = measures.peer(place.peer("takes"), recordings, np.array([EMOTIONS.index(classes[i]) for i in labels]))
    fer = theirs["probability_fer"][:, [EMOTIONS.index(name) for name in classes]]
    # This works for any network's answers.
    fer_person = without_person(np.log(np.maximum(fer, 1e-12)), ["1"] * len(fer))
    theirs = {_FER: fer, _FER_PERSON: fer_person}
    probability = {
        f"{title}{_SAYS.get(suffix, '')}": _said(place, run, suffix)["probability"][None]
        for run, title in _TITLES.items()
        for suffix in ADAPTATIONS
    }
    shares = _shares(place)[: len(classes)]
    probability["avemo, teacher, the classes' shares in its training divided out"] = first["probability"][None] / shares
    for suffix in ("", "_both"):
        students = [_said(place, faces.student_name(seed), suffix)["probability"] for seed in SEEDS]
        name = f"avemo, student (has seen unlabelled clips of the same actor){_SAYS.get(suffix, '')}"
        probability[name] = np.stack(students)
    found = {name: significance.accuracy(labels, value.argmax(-1)) for name, value in probability.items()}
    found |= {name: significance.accuracy(labels, value.argmax(-1)[None]) for name, value in theirs.items()}
    plain, adapted = _TITLES[ROBUST], f"{_TITLES[ROBUST]}{_SAYS['_both']}"
    order = [plain, adapted, *theirs, *(name for name in found if name not in (plain, adapted, *theirs))]
    at_home, said = faces.predictions(place, [ROBUST])
    return {
        "metric": "accuracy",
        "unit": "take",
        "scores": [measures.score(name, found[name], ours=name not in theirs) for name in order],
        "differences": [
            measures.difference(plain, _FER, found[plain], found[_FER]),
            measures.difference(adapted, _FER, found[adapted], found[_FER]),  # the better of the two
            measures.difference(adapted, plain, found[adapted], found[plain]),
        ],
        "checks": [
            measures.check("reach 0.62 as it is", found[plain].mean() >= 0.62),
            measures.check("reach 0.62 fitted without labels", found[adapted].mean() >= 0.62),
            measures.check("aim 0.70 fitted without labels", found[adapted].mean() >= 0.70),
        ],
        "reached": {
            f"{run}{suffix}": found[f"{title}{_SAYS.get(suffix, '')}"].mean()
            for run, title in _TITLES.items()
            for suffix in ADAPTATIONS
        },
        "at_home": significance.accuracy(at_home, said.argmax(-1)).mean(),
        **faces.by_class(labels, probability[adapted], classes),
    }


EXPERIMENTS = {
    "cross_corpus": Experiment(
        "cross_corpus",
        "Cross-corpus",
        "RAVDESS, 52 takes of one actor, never seen with labels in training; 7 classes, frames pooled; each network as "
        "it is, and fitted to all takes at once without their labels (`evaluate --adapt`)",
        _steps,
        _measure,
    ),
}
