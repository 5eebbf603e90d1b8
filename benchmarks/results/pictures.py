"""Writes the pictures of a prepared split into one `.npz`, so that other programs see the same ones.

python -m benchmarks.results.pictures --data=DATA/fer --split=test --output=pictures.npz
"""

import argparse
import pathlib

import numpy as np

from avemo.data import shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="prepared faces, all of one size")
    parser.add_argument("--split", required=True)
    parser.add_argument(
        "--output", required=True, type=pathlib.Path, help="image uint8 [N, H, W, 3] RGB, label, classes"
    )
    arguments = parser.parse_args()
    data = shards.Shards(arguments.data, arguments.split)
    records = [data[number] for number in range(len(data))]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        arguments.output,
        image=np.stack([record["image"].decode(0) for record in records]),
        label=np.array([record["label"] for record in records]),
        classes=np.array(data.class_names),
    )


if __name__ == "__main__":
    main()
