"""Faces per second on one core: our data pipeline beside a PyTorch DataLoader, on the same JPEGs.

    python -m benchmarks.input --source=../shared/data [--faces=16384] [--read=1536] [--rounds=5] [--size=140] \
        [--workers=0]

Both sides read the same JPEG bytes (FER+ faces at 160 px, or synthetic faces without FER+). For each face they draw a
new crop, flip, gain and offset from the same ranges, resize to the same size, and return uint8 batches of 64 with
labels. Ours is `avemo.data.pipeline.train_batches` on ArrayRecord shards, in the calling thread, and the augmentation
of the compiled step, here on the CPU. Theirs writes out what
torchvision's ImageFolder and transforms do: PIL decodes the file, crops, resizes (bilinear), flips and enhances, and
DataLoader collates. With `--workers=0`, DataLoader loads in the same process and passes no tensors between processes;
with 1, that cost counts too.

The two take turns. Each round measures faces per second of processor time (the process, its threads and its children),
which other work on the machine does not change, and per second of wall-clock time. Prints the medians and their ratio.
"""

import argparse
import functools
import json
import pathlib
import resource
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable

import cv2
import jax
import numpy as np
import PIL.Image
import PIL.ImageEnhance
import torch

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from avemo import configuration  # noqa: E402
from avemo.data import augment, examples, layouts, pipeline, shards  # noqa: E402
from data_prep.preparation import prepare  # noqa: E402
from media.images import encode_jpeg  # noqa: E402

SIDE, BATCH = 160, 64


def write_faces(source: pathlib.Path, folder: pathlib.Path, count: int) -> str:
    """Writes `count` JPEGs of 160 px; returns what they show."""
    folder.mkdir()
    archive = source / "ferplus" / "FER2013Train.zip"
    if archive.exists():
        with zipfile.ZipFile(archive) as packed:
            names = sorted(name for name in packed.namelist() if name.endswith(".png"))[:count]
            encoded = [np.frombuffer(packed.read(name), np.uint8) for name in names]
            pictures = [np.asarray(cv2.imdecode(picture, cv2.IMREAD_COLOR)) for picture in encoded]
        kind = "FER+ faces, enlarged"
    else:
        from data_prep.synthetic import stills

        drawn = folder.with_name("drawn")
        drawn.mkdir()
        stills.write_unlabelled(drawn, 0, 0, count, SIDE)
        pictures = [np.asarray(cv2.imread(str(path))) for path in sorted(drawn.rglob("*.jpg"))]
        kind = "synthetic faces"
    for number, picture in enumerate(pictures):
        large = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        (folder / f"{number:06}.jpg").write_bytes(encode_jpeg(cv2.cvtColor(large, cv2.COLOR_BGR2RGB)))
    return kind


class Files(torch.utils.data.Dataset):
    """The same JPEGs read by PIL, with the same augmentations."""

    def __init__(self, folder: pathlib.Path, strength: dict[str, float], size: int):
        self._paths = [str(path) for path in sorted(folder.iterdir())]
        self._strength, self._size = strength, size

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        strength, draw = self._strength, torch.rand(6).tolist()
        with open(self._paths[index], "rb") as file:
            image = PIL.Image.open(file).convert("RGB")
        scale = 1 - strength["crop"] * draw[0]
        w, h = round(image.width * scale), round(image.height * scale)
        x, y = int(draw[1] * (image.width - w + 1)), int(draw[2] * (image.height - h + 1))
        image = image.crop((x, y, x + w, y + h)).resize((self._size, self._size), PIL.Image.Resampling.BILINEAR)
        if draw[3] < 0.5:
            image = image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        image = PIL.ImageEnhance.Brightness(image).enhance(1 + strength["colour"] * (2 * draw[4] - 1))
        image = PIL.ImageEnhance.Contrast(image).enhance(1 + strength["colour"] * (2 * draw[5] - 1))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1), 0


def processor_seconds() -> float:
    """Processor seconds of this process and its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def rates(read: Callable[[int], None], faces: int) -> tuple[float, float]:
    """Faces per processor second and per wall-clock second, from reading `faces` faces in batches."""
    busy, wall = processor_seconds(), time.perf_counter()
    read(faces // BATCH)
    return faces / (processor_seconds() - busy), faces / (time.perf_counter() - wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=pathlib.Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--faces", type=int, default=16384, help="pictures in the data set")
    parser.add_argument("--read", type=int, default=1536, help="pictures that each side reads per turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=140, help="side of the result, pixels; the paper's is 140")
    parser.add_argument("--workers", type=int, default=0, help="DataLoader's num_workers")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    count = min(arguments.read, arguments.faces) // BATCH * BATCH
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "faces"
        kind = write_faces(arguments.source, folder, arguments.faces)
        prepared, _ = prepare("unlabelled", folder, pathlib.Path(temporary) / "out", workers=1, quiet=True)
        stored = shards.Shards(str(prepared), "train")
        same = {path.read_bytes() for path in folder.iterdir()} == {
            stored[index]["image"].encoded[0] for index in range(len(stored))
        }
        config = configuration.load(str(ROOT / "configs/paper/teacher.py"))
        config.data.threads = 0  # in the calling thread, nothing read ahead: each side works only in its turn
        config.model.image_size = arguments.size
        strength = {name: config.data.augment[name] for name in ("crop", "colour")}
        read_faces = functools.partial(layouts.pictures, examples.face_example, field="image", config=config)
        source = pipeline.Source(str(prepared), examples.face_example, BATCH, layout=read_faces)
        batches = iter(pipeline.train_batches({"faces": source}, config))
        keys = jax.random.split(jax.random.key(0), BATCH)
        augmented = jax.jit(lambda images: augment.faces(images, keys, config.data.augment, arguments.size))

        def ours(number: int) -> None:
            for _ in range(number):
                batch = np.asarray(augmented(next(batches)["faces"]["image"]))
            assert batch.shape == (BATCH, arguments.size, arguments.size, 3)

        def theirs(number: int) -> None:
            files = Files(folder, strength, arguments.size)
            drawn = torch.randperm(len(files))[: number * BATCH].tolist()  # only this turn's: no worker reads beyond it
            loader = torch.utils.data.DataLoader(files, BATCH, sampler=drawn, num_workers=arguments.workers)
            iterator = iter(loader)
            for _ in range(number):
                batch = next(iterator)[0]
            assert batch.shape == (BATCH, 3, arguments.size, arguments.size)
            del iterator, loader  # ends the workers, whose processor time counts only then

        sides = {"avemo": ours, "pytorch": theirs}
        for read in sides.values():  # warms the page cache
            read(count // BATCH)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, read in sides.items():
                found[name].append(rates(read, count))
    out = {
        "faces": f"{len(stored)} {kind}",
        "same_bytes": same,
        "size": arguments.size,
        "torch_workers": arguments.workers,
    }
    for column, unit in enumerate(("faces_per_processor_second", "faces_per_wall_second")):
        middle = {name: statistics.median(row[column] for row in rows) for name, rows in found.items()}
        each = [a[column] / b[column] for a, b in zip(found["avemo"], found["pytorch"], strict=True)]
        out[unit] = {
            **{name: round(value) for name, value in middle.items()},
            "ratio": round(middle["avemo"] / middle["pytorch"], 2),
            "ratio_lowest_round": round(min(each), 2),
        }
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
