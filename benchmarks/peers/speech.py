"""Logistic regression on eGeMAPS, YAMNet's mean embedding and both, on RAVDESS speech with speakers left out.

    .venv-peers/bin/python -m benchmarks.peers.speech --source=DATA/ravdess_speech \\
        --yamnet=DATA/weights/yamnet.tflite --folds='1,2,3;4,5,6;7,8,9;10,11,12' --output=runs/results/peers/speech.npz

Each fold trains on all other speakers and chooses C among them. The output holds the features, the files' names and
labels (0 to 7 in RAVDESS's order), each file's fold, and the probabilities of the three.
"""

import argparse
import pathlib
import time
from typing import Any

import numpy as np

from benchmarks.peers import features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, type=pathlib.Path)
    parser.add_argument("--yamnet", required=True, type=pathlib.Path)
    parser.add_argument("--folds", required=True, help="test speakers of each fold: 1,2;3,4")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    files, codes = features.ravdess(arguments.source, "03-01-*.flac")
    label, speaker = codes[:, 2] - 1, codes[:, 6]
    began = time.time()
    sounds = [features.sound(path) for path in files]
    inputs = {"egemaps": features.egemaps(sounds), "yamnet": features.yamnet(sounds, arguments.yamnet)}
    inputs["both"] = np.concatenate([inputs["egemaps"], inputs["yamnet"]], 1)
    seconds = {"features": time.time() - began}
    fold = np.full(len(files), -1)
    probability = {name: np.zeros((len(files), 8)) for name in inputs}
    chosen: dict[str, list[float]] = {name: [] for name in inputs}
    for number, text in enumerate(arguments.folds.split(";")):
        test = np.isin(speaker, [int(part) for part in text.split(",")])
        fold[test] = number
        for name, x in inputs.items():
            began = time.time()
            found = features.regression(x[~test], label[~test], speaker[~test])
            probability[name][test] = found.predict_proba(x[test])
            chosen[name].append(found.best_params_["logisticregression__C"])
            seconds[name] = seconds.get(name, 0.0) + time.time() - began
            hits = (probability[name][test].argmax(1) == label[test]).mean()
            print(f"fold {number} {name}: C {chosen[name][-1]}, accuracy {hits:.3f}", flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        "name": [path.stem for path in files],
        "label": label,
        "speaker": speaker,
        "fold": fold,
        **{f"features_{name}": inputs[name] for name in ("egemaps", "yamnet")},
        **{f"probability_{name}": value for name, value in probability.items()},
        **{f"seconds_{name}": value for name, value in seconds.items()},
        **{f"C_{name}": value for name, value in chosen.items()},
    }
    np.savez_compressed(arguments.output, **arrays)


if __name__ == "__main__":
    main()
