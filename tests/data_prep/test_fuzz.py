"""Mutated files cause neither a crash nor a hang, and each is accounted for."""

import json
import pathlib
import time

import cv2
import numpy as np
import pytest

from data_prep import task_runner
from data_prep.corpora import CORPORA, own, recola, unlabelled
from data_prep.corpora.base import Item
from data_prep.preparation import prepare
from media.errors import UserError


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flips, cuts, doubles or blanks a stretch of a file."""
    out = bytearray(data)
    kind = rng.integers(5)
    start = int(rng.integers(len(out)))
    length = int(rng.integers(1, max(2, min(4096, len(out) - start))))
    if kind == 0:
        for place in rng.integers(0, len(out), rng.integers(1, 40)):
            out[place] = rng.integers(256)
    elif kind == 1:
        del out[start:]
    elif kind == 2:
        del out[start : start + length]
    elif kind == 3:
        out[start:start] = out[start : start + length]
    else:
        out[start : start + length] = rng.bytes(length)
    return bytes(out)


def seeds(folder: pathlib.Path, draw) -> dict[str, bytes]:
    images, times, sound = draw.talking(0.4, 25)
    draw.video(folder / "seed.mp4", images, times, sound)
    draw.sound(folder / "seed.wav", sound)
    cv2.imwrite(str(folder / "seed.jpg"), draw.picture((30, 30, 30)))
    draw.recola(folder / "recola", (16,), seconds=0.4)
    table = folder / "recola" / "RECOLA-Annotation" / "emotional_behaviour" / "valence" / "P16.csv"
    (folder / "seed.csv").write_bytes(table.read_bytes())
    return {suffix: (folder / f"seed.{suffix}").read_bytes() for suffix in ("mp4", "wav", "jpg", "csv")}


def account(tmp_path, draw, count: int, red_square: str) -> None:
    rng = np.random.default_rng(0)
    originals = seeds(tmp_path, draw)
    base = recola.Recola(tmp_path / "recola", recola.Options(detector=red_square, crop_size=16))
    (template,) = base.items()
    clips = own.Own(tmp_path, own.Options(detector=red_square, crop_size=16))
    pictures = unlabelled.UnlabelledFaces(tmp_path, unlabelled.Options(detector=red_square, detect_images=True))
    task_runner.run_task(base, [template], str(tmp_path / "spool"))  # triggers imports that happen on first use
    slowest = 0.0
    for number in range(count):
        suffix = ("mp4", "wav", "jpg", "csv")[number % 4]
        path = tmp_path / f"mutant{number}.{suffix}"
        path.write_bytes(mutate(originals[suffix], rng))
        if suffix == "csv":
            corpus, item = base, Item(path.name, "train", "", {**template.payload, "valence": str(path)})
        elif suffix == "jpg":
            corpus, item = pictures, Item(path.name, "train", "", {"path": str(path)})
        else:
            corpus, item = clips, Item(path.name, "test", "", {"path": str(path)})
        began = time.monotonic()
        task_runner.run_task(corpus, [item], str(tmp_path / "spool"))
        slowest = max(slowest, time.monotonic() - began)
        index = json.loads((tmp_path / "spool.json").read_text())
        assert index["done"] + len(index["skipped"]) + sum(index["dropped"].values()) == 1, path.name
        assert bool(index["records"]) == bool(index["done"]), path.name
        path.unlink()
    assert slowest < 30


def test_five_hundred_mutated_files(tmp_path, draw, red_square):
    account(tmp_path, draw, 500, red_square)


def test_every_corpus_refuses_an_empty_folder(tmp_path):
    for name in CORPORA:
        said = "no features are named" if name == "features" else "is not laid out as"
        with pytest.raises(UserError, match=said):
            prepare(name, tmp_path, tmp_path / "out", quiet=True)
