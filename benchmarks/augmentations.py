"""Draws `docs/images/augmentations.png` from a finished demo: one face and one window of sound under each augmentation.

python -m benchmarks.augmentations runs/demo [--output=docs/images/augmentations.png]
"""

import argparse
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from avemo import analysis  # noqa: E402
from avemo.data import shards  # noqa: E402
from avemo.data.examples import MEL_ROWS  # noqa: E402
from media.images import resize  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=pathlib.Path, help="folder of a finished demo")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs" / "images" / "augmentations.png")
    arguments = parser.parse_args()
    face = shards.Shards(arguments.demo / "data" / "affectnet", "train")[0]["image"].decode(0)
    log_mel = shards.Shards(arguments.demo / "data" / "clips", "train")[0]["log_mel"]
    middle = (len(log_mel) - MEL_ROWS) // 2
    window = np.asarray(log_mel[middle : middle + MEL_ROWS], np.float32)
    analysis.plot_augmentations(resize(face, 96), window).savefig(arguments.output, dpi=72)
    print(arguments.output)


if __name__ == "__main__":
    main()
