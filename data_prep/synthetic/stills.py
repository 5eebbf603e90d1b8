"""Still faces: AffectNet's new layout, FEC's triplets over a pool of pictures, and a folder without labels."""

import json
import pathlib
from typing import Any

import cv2
import numpy as np

from data_prep.synthetic import expression, latent
from data_prep.synthetic.face import Pose
from data_prep.synthetic.identity import Identity
from data_prep.synthetic.scene import Scene

# AffectNet's training counts; the square root keeps the order of the classes and leaves enough of the rare ones.
AFFECTNET_COUNTS = np.array([74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750])
CLOSE = 0.44  # half face height as a share of the side, as in a crop of a detector's box with a margin
TAKES = 4  # pictures per person
NONE, UNCERTAIN, NO_FACE = 8, 9, 10
UNLABELLED = -2
SIMILAR = 0.72  # largest distance within the similar pair, as a share of its distance from the odd one out
ANNOTATORS = 6


def _photograph(rng: np.random.Generator, scene: Scene, face: np.ndarray) -> np.ndarray:
    """Takes one picture of a person: pose, mouth, light and camera vary."""
    pose = Pose(
        speech=rng.uniform(0, 0.35) if rng.random() < 0.25 else 0.0,
        gaze=rng.uniform(-0.6, 0.6, 2),
        turn=rng.normal(0, 0.12),
    )
    image = scene.render(
        face,
        pose,
        at=rng.normal(0, 0.05, 2),
        tilt=rng.normal(0, 0.07),
        zoom=rng.uniform(0.93, 1.07),
        gain=rng.uniform(0.75, 1.15),
        grain=rng.integers(0, 32, 2),
    )
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.1))
    return image


def save(path: pathlib.Path, image: np.ndarray) -> None:
    """Writes a JPEG of an RGB picture."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not done:
        raise RuntimeError(f"OpenCV cannot encode {path.name}")
    path.write_bytes(data.tobytes())


def affectnet_labels(seed: int, split: str, count: int) -> np.ndarray:
    """Returns each still's class, int64 `[count]`: training long-tailed with a few 8, 9 and 10, validation even."""
    rng = latent.stream(seed, "affectnet", split, "labels")
    if split == "val":
        return np.arange(count) % len(expression.CLASSES)
    share = np.sqrt(AFFECTNET_COUNTS)
    labels = rng.choice(len(share), size=count, p=share / share.sum())
    stray = rng.random(count) < 0.015
    return np.where(stray, rng.choice([NONE, UNCERTAIN, NO_FACE], size=count), labels)


def write_affectnet(folder: pathlib.Path, seed: int, split: str, first: int, labels: np.ndarray, size: int) -> None:
    """Writes the stills of one person, numbered from `first`, into `folder` (`train_set` or `val_set`)."""
    who = Identity.sample(latent.stream(seed, "affectnet", split, "identity", first))
    rng = latent.stream(seed, "affectnet", split, first)
    scene = Scene(rng, who, size, head=CLOSE, noise=2.5, centre=(0.5, 0.487))
    for number, label in enumerate(labels, start=first):
        if label < len(expression.CLASSES):
            face, affect = expression.sample(rng, int(label))
        else:
            face, affect = expression.make(), np.array([UNLABELLED, UNLABELLED])
        image = scene.room if label == NO_FACE else _photograph(rng, scene, face)
        if rng.random() < 0.01:
            affect = np.array([UNLABELLED, UNLABELLED])
        save(folder / "images" / f"{number}.jpg", image)
        scalars = {"exp": str(int(label)), "val": f"{affect[0]:g}", "aro": f"{affect[1]:g}"}
        for key, text in scalars.items():
            np.save(folder / "annotations" / f"{number}_{key}.npy", np.array(text))
        points = np.zeros((68, 2)) if label == NO_FACE else scene.landmarks()
        np.save(folder / "annotations" / f"{number}_lnd.npy", points.ravel())


def pool_face(seed: int, split: str, number: int) -> tuple[np.ndarray, int]:
    """Returns expression and class of one picture of FEC's pool: the same in the picture and in the triplets."""
    rng = latent.stream(seed, "fec", split, "face", number)
    label = int(rng.integers(len(expression.CLASSES)))
    return expression.sample(rng, label)[0], label


def write_pool(folder: pathlib.Path, seed: int, split: str, first: int, count: int, size: int) -> list[list[float]]:
    """Writes FEC's pictures of one person and returns their face boxes: left, right, top, bottom as fractions."""
    rng = latent.stream(seed, "fec", split, first)
    who = Identity.sample(latent.stream(seed, "fec", split, "identity", first))
    head = rng.uniform(0.26, 0.34)
    scene = Scene(rng, who, size, head=head, noise=2.5, centre=(rng.uniform(0.42, 0.58), rng.uniform(0.44, 0.50)))
    boxes = []
    for number in range(first, first + count):
        save(folder / f"{number:05d}.jpg", _photograph(rng, scene, pool_face(seed, split, number)[0]))
        points = scene.landmarks() / size
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        top -= 0.30 * (bottom - top)  # landmarks end at the brows, FEC's boxes at the forehead
        loose = rng.normal(0.02, 0.01, 4)
        box = np.clip([left - loose[0], right + loose[1], top - loose[2], bottom + loose[3]], 0, 1)
        boxes.append([round(float(edge), 6) for edge in box])
    return boxes


def draw_triplets(seed: int, split: str, count: int, pool: int) -> list[tuple[list[int], int, str, list[int]]]:
    """Draws comparison triplets over a pool of pictures.

    A quarter of them spans one class, half spans two, a quarter spans three. The similar pair is clearly nearer in
    expression space. Six annotators vote; they disagree more on closer calls, so that a few triplets have less than the
    usual agreement of 2/3.

    Returns:
      Rows of (three picture numbers, index 0–2 of the odd one out, type, the six votes 1–3).
    """
    rng = latent.stream(seed, "fec", split, "triplets")
    faces, labels = zip(*(pool_face(seed, split, number) for number in range(pool)), strict=True)
    faces, labels = np.stack(faces), np.array(labels)
    kinds = rng.permutation(np.array([1, 2, 2, 3] * (count // 4 + 1))[:count])
    rows = []
    for kind in kinds:
        while True:
            three = _candidates(rng, labels, int(kind))
            if three is None:
                continue
            gaps = np.array(
                [expression.distance(faces[three[(k + 1) % 3]], faces[three[(k + 2) % 3]]) for k in range(3)]
            )
            odd = int(np.argmin(gaps))
            ratio = gaps[odd] / np.min(np.delete(gaps, odd))
            if ratio <= SIMILAR:
                break
        agree = np.clip(1.0 - 0.55 * (ratio / SIMILAR) ** 3, 0.5, 0.98)
        votes = [
            odd + 1 if rng.random() < agree else (odd + int(rng.integers(1, 3))) % 3 + 1 for _ in range(ANNOTATORS)
        ]
        name = ("ONE", "TWO", "THREE")[kind - 1] + "_CLASS_TRIPLET"
        rows.append(([int(n) for n in three], odd, name, votes))
    return rows


def _candidates(rng: np.random.Generator, labels: np.ndarray, kind: int) -> np.ndarray | None:
    """Draws three different pictures that span `kind` classes, or returns None if this draw fails."""
    if kind == 3:
        three = rng.choice(len(labels), 3, replace=False)
    else:
        same = np.flatnonzero(labels == rng.integers(len(expression.CLASSES)))
        if len(same) < 3:
            return None
        three = rng.choice(same, 3, replace=False)
        if kind == 2:
            three[2] = rng.integers(len(labels))
        rng.shuffle(three)
    return three if len(set(labels[three])) == kind and len(set(three)) == 3 else None


def write_unlabelled(folder: pathlib.Path, seed: int, first: int, count: int, size: int) -> None:
    """Writes pictures of another person with expressions from the whole plane of valence and arousal."""
    rng = latent.stream(seed, "unlabelled", first)
    scene = Scene(rng, Identity.sample(rng), size, head=CLOSE * rng.uniform(0.9, 1.0), noise=2.5, centre=(0.5, 0.487))
    for number in range(first, first + count):
        if rng.random() < 0.5:
            face = expression.from_affect(rng.uniform(-1, 1, (1, 2)))[0]
        else:
            face = expression.sample(rng, int(rng.integers(len(expression.CLASSES))))[0]
        save(folder / f"{number:05d}.jpg", _photograph(rng, scene, face))


def dump(path: pathlib.Path, value: Any) -> None:
    """Writes JSON; the same value gives the same bytes."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
