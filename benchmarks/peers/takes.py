"""Today's tools on RAVDESS takes: PyPI `fer` on the frames, eGeMAPS + logistic regression on the sound.

    .venv-peers/bin/python -m benchmarks.peers.takes --source=DATA/ravdess_takes \\
        --speech=runs/results/peers/speech.npz --output=runs/results/peers/takes.npz

`fer` runs with its defaults on every frame: its own Haar cascade (or the whole picture if that finds no face), then the
mean over frames. The regression learns the same emotions from the speech of all other speakers (`--speech`, output of
`benchmarks.peers.speech`). The output holds names, labels in RAVDESS's order and three `[takes, 8]` probabilities.
"""

import argparse
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from benchmarks.peers import features

# fer's names in RAVDESS's order; fer has no calm.
ORDER = {"neutral": 0, "happy": 2, "sad": 3, "angry": 4, "fear": 5, "disgust": 6, "surprise": 7}


def pictures(path: pathlib.Path) -> Iterator[np.ndarray]:
    """The frames of a video, uint8 `[H, W, 3]` BGR, by PyAV: OpenCV's FFmpeg and PyAV's in one process crash."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="bgr24")


def faces(path: pathlib.Path, detector: Any) -> tuple[np.ndarray, int, int]:
    """fer's mean probabilities over the frames, `[8]`; the number of frames, and of those without a detected face."""
    found, missed = [], 0
    for image in pictures(path):
        seen = detector.detect_emotions(image)
        if not seen:
            missed += 1
            whole = np.array([[0, 0, image.shape[1], image.shape[0]]])
            seen = detector.detect_emotions(image, face_rectangles=whole)
        largest = max(seen, key=lambda face: face["box"][2] * face["box"][3])
        row = np.zeros(8)
        for name, index in ORDER.items():
            row[index] = largest["emotions"][name]
        found.append(row)
    return np.mean(found, 0), len(found), missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, type=pathlib.Path)
    parser.add_argument("--speech", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    files, codes = features.ravdess(arguments.source, "01-01-*.mp4")
    label, actors = codes[:, 2] - 1, set(codes[:, 6])
    with np.load(arguments.speech, allow_pickle=False) as file:
        speech = dict(file)
    others = ~np.isin(speech["speaker"], list(actors)) & np.isin(speech["label"], np.unique(label))
    x, y, speaker = (speech[name][others] for name in ("features_egemaps", "label", "speaker"))
    began = time.time()
    model = features.regression(x, y, speaker)
    heard = np.zeros((len(files), 8))
    classes = model.best_estimator_.classes_
    heard[:, classes] = model.predict_proba(features.egemaps([features.sound(path) for path in files]))
    seconds = {"egemaps": time.time() - began}
    from fer.fer import FER  # imported late: openSMILE's library aborts in a process that has imported fer

    began = time.time()
    detector = FER()
    seen = [faces(path, detector) for path in files]
    frames, missed = (sum(row[i] for row in seen) for i in (1, 2))
    seconds["fer"] = time.time() - began
    probability = {"fer": np.stack([row[0] for row in seen]), "egemaps": heard}
    probability["late"] = (probability["fer"] + probability["egemaps"]) / 2
    for name, value in probability.items():
        print(f"{name}: accuracy {(value.argmax(1) == label).mean():.3f}", flush=True)
    print(f"fer's cascade found no face in {missed} of {frames} frames")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        "name": [path.stem for path in files],
        "label": label,
        "frames": frames,
        "missed": missed,
        "C": model.best_params_["logisticregression__C"],
        **{f"probability_{name}": value for name, value in probability.items()},
        **{f"seconds_{name}": value for name, value in seconds.items()},
    }
    np.savez_compressed(arguments.output, **arrays)


if __name__ == "__main__":
    main()
