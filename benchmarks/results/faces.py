"""Rows of the face networks: teacher, student, embedding, and RAVDESS as they have never seen it."""

from collections.abc import Sequence
from typing import Any

from benchmarks.results import core
from benchmarks.results.core import Place, Row, Step

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
    return _teacher(place, "teacher", "configs/results/teacher.py")


def _teacher(place: Place, name: str, config: str) -> Step:
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
