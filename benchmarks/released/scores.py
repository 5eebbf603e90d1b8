"""What the release scores: faces on FER+ and, unchanged, on the takes; voice and both by the twin that has not heard
the speakers."""

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from avemo import metrics
from avemo.metrics import significance
from avemo.runs import shipped
from benchmarks.released import recipe
from benchmarks.results import faces, measures
from benchmarks.results.steps import ROOT, Place, Step
from data_prep.corpora import ravdess
from media.errors import UserError


def steps(place: Place) -> list[Step]:
    """Scoring of the release that avemo carries; needs the prepared corpora alone."""
    return [
        scored(place, "emotions/faces", "fer", place.data("fer")),
        scored(place, "emotions/faces", "fer_flip", place.data("fer"), "--flip"),
        scored(place, "emotions/faces", "takes", place.data("takes")),
        predicted(place),
    ]


def predicted(place: Place) -> Step:
    """The step that predicts the takes' videos as a user does."""
    output = place.said(_of_today(PREDICTED))
    arguments = (f"--input={place.source / 'ravdess_takes'}", f"--output={output}", "--files=json")
    return Step(f"said/{PREDICTED}", ("launch.py", "predict", *arguments))


def _of_today(name: str) -> str:
    """The name with the digest of the carried release, so that what another one said is not taken for its words."""
    return f"{name}_{(shipped.package() / shipped.DIGEST).read_text()[:8]}"


def twin_steps(place: Place) -> list[Step]:
    """Scoring of the twin, which has to be trained first."""
    features = place.work / "features" / _of_today("twin")
    return [
        Step(_of_today("installed/twin"), ("launch.py", "release", f"--install={place.work / recipe.TWIN}.zip")),
        scored(place, "twin/speech_f0", "speech", place.data("speech_f0")),
        recipe.extract(_of_today("features/twin"), "twin/faces,twin/speech_f0", place.data("takes"), features),
        scored(place, "twin/fusion", "both", features),
    ]


def scored(place: Place, run: str, name: str, data: pathlib.Path, *flags: str) -> Step:
    """The step that writes the predictions of a released run on the test split of some data."""
    arguments = (
        f"--workdir={run}",
        f"--data={data}",
        "--split=test",
        *flags,
        f"--output={place.said(_of_today(name))}",
    )
    return Step(f"said/{name}", ("launch.py", "evaluate", *arguments))


def clip(place: Place) -> pathlib.Path:
    """The GRID clip that the first trace is timed on.

    Raises:
      UserError: there is none.
    """
    clips = sorted((place.source / "grid").rglob("*.mpg"))
    if not clips:
        raise UserError(f"{place.source / 'grid'} holds no clip of GRID (*.mpg): docs/corpora.md says how to get it.")
    return clips[0]


PREDICTED = "takes_predicted"
ROWS = {
    "fer": ("faces", "FER+, validation part, 8 classes", "picture"),
    "fer_flip": ("faces", "the same, each picture averaged with its mirror image", "picture"),
    "takes": ("faces", "RAVDESS takes, one actor, 7 classes, another corpus, as it is", "take"),
    PREDICTED: ("fusion", "the same takes by `predict`: what the face says alone", "take"),
    "speech": ("speech", "RAVDESS speech, 8 classes, speakers 1 to 3; by the twin that has not heard them", "clip"),
    "both": ("fusion", "RAVDESS takes, 7 of 8 classes; by the twin that has not heard the actor", "take"),
}


def measure(place: Place, before: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Scores with intervals of what has been evaluated, and the seconds of the first trace.

    A row that was not evaluated here, because the twin was not trained, is taken from `before`.
    """
    rows: list[Mapping[str, Any]] = []
    for name, (run, what, unit) in ROWS.items():
        folder = place.said(_of_today(name))
        read, file = (_faces_alone, folder) if name == PREDICTED else (measures.load, folder / "test.npz")
        if file.exists():
            said = read(file)
            keep = said["label"] >= 0
            found = _scores(said["label"][keep], said["probability"][keep])
            rows.append({"run": run, "data": what, "unit": unit, **found})
        else:
            rows += [row for row in before if row["data"] == what]
    return {
        "sha256": (shipped.package() / shipped.DIGEST).read_text().split()[0],
        "rows": rows,
        "first_trace": first_trace(place),
    }


def _faces_alone(traces: pathlib.Path) -> dict[str, np.ndarray]:
    """What `predict` said of the takes' faces, over the takes' classes; their names hold the labels."""
    classes = faces.FER_CLASSES
    label, probability = [], []
    for trace in sorted(traces.glob("*/trace.json")):
        said = json.loads(trace.read_text())["faces"][0]["face_alone"]["probabilities"]
        emotion = int(ravdess.parse(trace.parent.name)["emotion"])
        label.append(classes.index(ravdess.EMOTIONS[emotion - 1]))
        probability.append([said[name] for name in classes])
    chosen = np.array(probability)
    return {"label": np.array(label), "probability": chosen / chosen.sum(-1, keepdims=True)}


def first_trace(place: Place) -> dict[str, float]:
    """Seconds that a new process takes for all files of a GRID clip: on the clock, and of processor time."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ("launch.py", "predict", f"--input={clip(place)}", f"--output={folder}/trace")
        environment = {**os.environ, "AVEMO_CACHE": folder, "XDG_CACHE_HOME": folder}  # nothing is compiled yet
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=environment, check=False, capture_output=True, text=True
        )
        wall, after = time.time() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise UserError(f"predict of {clip(place)} failed: {' '.join(done.stderr.strip().splitlines()[-1:])}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(wall, 1), "processor_seconds": round(processor, 1)}


def _scores(label: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
    found = significance.accuracy(label, probability.argmax(-1)[None])
    value = measures.score("", found)
    return {
        "n": len(label),
        **{name: round(value[key], 4) for name, key in (("accuracy", "value"), ("low", "low"), ("high", "high"))},
        **{name: round(v, 4) for name, v in metrics.class_scores(label, probability).items() if name in ("uar", "ece")},
        "recall": [
            round(float((probability.argmax(-1) == c)[label == c].mean()), 3) if (label == c).any() else None
            for c in range(probability.shape[1])
        ],
    }
