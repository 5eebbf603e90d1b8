"""Plain regressions of SEWA's gold traces from nine systems' traces: cross-validated ridge and linear SVR.

    .venv-peers/bin/python -m benchmarks.peers.regressions --source=DATA/sewa_devel --output=runs/results/peers/sewa.npz

Both read the systems' arousal and valence within a window of ±15 frames, one regression for each dimension. They learn
from every tenth frame of the recordings that are not tested. The strength of their penalty is chosen among the learned
recordings, every third of which is held out in turn. Predictions are not post-processed. The output holds, for each
protocol, `METHOD_PROTOCOL` `[frames, 2]` (valence, arousal) of the tested recordings in the order of their names.
"""

import argparse
import csv
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

WINDOW, STEP, PARTS = 15, 10, 3
LABELS = "labels_devel"
DIMENSIONS = ("valence", "arousal")
STRENGTHS = {"ridge": (1e0, 1e1, 1e2, 1e3, 1e4), "svr": (1e-4, 1e-3)}


def traces(path: pathlib.Path) -> np.ndarray:
    """Valence and arousal of a table of the challenge, `[T, 2]`."""
    with path.open(newline="") as file:
        return np.array([[float(row[name]) for name in DIMENSIONS] for row in csv.DictReader(file, delimiter=";")])


def read(source: pathlib.Path) -> tuple[list[str], list[np.ndarray], list[np.ndarray]]:
    """Names, windows `[T, 31 · systems · 2]` and gold traces `[T, 2]` of the recordings, sorted by name."""
    names = sorted(path.stem for path in (source / LABELS).glob("*.csv"))
    systems = sorted(path for path in source.iterdir() if path.name.startswith("predictions_"))
    inputs, gold = [], []
    for name in names:
        gold.append(traces(source / LABELS / f"{name}.csv"))
        frames = len(gold[-1])
        said = np.concatenate([traces(system / f"{name}.csv")[:frames] for system in systems], 1)
        padded = np.pad(said, [(WINDOW, WINDOW), (0, 0)], mode="edge")
        inputs.append(np.concatenate([padded[lag : lag + frames] for lag in range(2 * WINDOW + 1)], 1))
    return names, inputs, gold


def protocols(names: Sequence[str]) -> dict[str, list[list[int]]]:
    """The tested recordings of each fold: 7 folds, German to Hungarian, Hungarian to German."""
    german = [number for number, name in enumerate(names) if "_DE_" in name]
    hungarian = [number for number, name in enumerate(names) if "_HU_" in name]
    return {
        "folds": [list(range(fold, len(names), 7)) for fold in range(7)],
        "de_hu": [hungarian],
        "hu_de": [german],
    }


def ccc(x: np.ndarray, y: np.ndarray) -> float:
    """Concordance of two traces, moments over n."""
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return float(2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def fitted(method: str, strength: float, x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A regression of one dimension."""
    from sklearn.linear_model import Ridge
    from sklearn.svm import LinearSVR

    mean, deviation = x.mean(0), x.std(0) + 1e-6
    if method == "ridge":
        model = Ridge(alpha=strength)
    else:
        model = LinearSVR(C=strength, epsilon=0.05, loss="squared_epsilon_insensitive", dual=False, max_iter=2000)
    model.fit((x - mean) / deviation, y)
    return lambda new: model.predict((new - mean) / deviation)


def predict(
    method: str, inputs: Sequence[np.ndarray], gold: Sequence[np.ndarray], learned: Sequence[int], tested: Sequence[int]
) -> list[np.ndarray]:
    """Predictions `[T, 2]` of the tested recordings."""

    def of(numbers: Sequence[int], dimension: int) -> tuple[np.ndarray, np.ndarray]:
        x = np.concatenate([inputs[n][::STEP] for n in numbers])
        return x, np.concatenate([gold[n][::STEP, dimension] for n in numbers])

    columns = []
    for dimension in range(len(DIMENSIONS)):
        scores = []
        for strength in STRENGTHS[method]:
            said, true = [], []
            for part in range(PARTS):
                held = learned[part::PARTS]
                model = fitted(method, strength, *of([n for n in learned if n not in held], dimension))
                x, y = of(held, dimension)
                said.append(model(x))
                true.append(y)
            scores.append(ccc(np.concatenate(said), np.concatenate(true)))
        best = STRENGTHS[method][int(np.argmax(scores))]
        model = fitted(method, best, *of(learned, dimension))
        columns.append([model(inputs[n]) for n in tested])
    return [np.stack(pair, -1) for pair in zip(*columns, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    names, inputs, gold = read(arguments.source)
    found = {}
    for protocol, folds in protocols(names).items():
        for method in STRENGTHS:
            said: dict[int, np.ndarray] = {}
            for tested in folds:
                learned = [number for number in range(len(names)) if number not in tested]
                said |= dict(zip(tested, predict(method, inputs, gold, learned, tested), strict=True))
            found[f"{method}_{protocol}"] = np.concatenate([said[number] for number in sorted(said)])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez(arguments.output, **found)


if __name__ == "__main__":
    main()
