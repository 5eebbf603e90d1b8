"""PyPI `fer` on still pictures that are already cropped to faces.

    .venv-peers/bin/python -m benchmarks.peers.stills --pictures=pictures.npz --output=runs/results/peers/fer_stills.npz

The whole picture is the face, so nothing is detected and no margin added. The output holds the labels, and the
probabilities `[N, 7]` with avemo's names of the classes.
"""

import argparse
import pathlib

import numpy as np
from fer.fer import FER

NAMES = {"angry": "anger", "disgust": "disgust", "fear": "fear", "happy": "happy", "sad": "sad"}
NAMES |= {"surprise": "surprise", "neutral": "neutral"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", required=True, type=pathlib.Path, help="output of benchmarks.results.pictures")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    with np.load(arguments.pictures, allow_pickle=False) as file:
        images, labels = file["image"], file["label"]
    detector = FER(offsets=(0, 0))
    rows = []
    for image in images:
        whole = np.array([[0, 0, image.shape[1], image.shape[0]]])
        (face,) = detector.detect_emotions(np.ascontiguousarray(image[..., ::-1]), face_rectangles=whole)
        rows.append([face["emotions"][name] for name in NAMES])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        arguments.output, label=labels, probability=np.array(rows), classes=np.array(list(NAMES.values()))
    )


if __name__ == "__main__":
    main()
