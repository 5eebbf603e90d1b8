"""What peers compute from a sound file: openSMILE's eGeMAPS functionals and the mean of YAMNet's embedding.

openSMILE (Eyben et al. 2010; the GeMAPS of 2016) as its package runs it; YAMNet as the published TFLite file runs it,
quantised, on windows of 0.975 s every 0.48 s.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import av
import numpy as np
import opensmile
import tensorflow as tf

RATE, WINDOW, HOP = 16_000, 15_600, 7_680


def ravdess(source: pathlib.Path, pattern: str) -> tuple[list[pathlib.Path], np.ndarray]:
    """RAVDESS files below a folder, sorted by name, and the seven numbers in each name, int `[files, 7]`.

    Raises:
      SystemExit: no file was found.
    """
    files = sorted(source.glob(f"**/{pattern}"), key=lambda path: path.stem)
    if not files:
        raise SystemExit(f"error: --source={source} holds no RAVDESS file {pattern}.")
    return files, np.array([[int(part) for part in path.stem.split("-")] for path in files])


def sound(path: pathlib.Path) -> np.ndarray:
    """The first sound track, mono at 16 kHz, float32 `[N]`."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", rate=RATE)
        blocks = []
        for frame in container.decode(audio=0):
            frame.pts = None
            blocks += [part.to_ndarray().mean(0) for part in resampler.resample(frame)]
        blocks += [part.to_ndarray().mean(0) for part in resampler.resample(None)]
    return np.concatenate(blocks).astype(np.float32)


def egemaps(sounds: Sequence[np.ndarray]) -> np.ndarray:
    """eGeMAPSv02 functionals, float32 `[files, 88]`."""
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    return np.concatenate([smile.process_signal(samples, RATE).to_numpy(np.float32) for samples in sounds])


def yamnet(sounds: Sequence[np.ndarray], model: pathlib.Path) -> np.ndarray:
    """Each file's mean embedding over its windows, float32 `[files, 1024]`."""
    interpreter = tf.lite.Interpreter(str(model), num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    tensors = interpreter.get_tensor_details()
    pool = next(t["index"] for t in tensors if t["name"].endswith("global_average_pooling2d/Mean"))
    rows = []
    for samples in sounds:
        samples = np.pad(samples, (0, max(0, WINDOW - len(samples))))
        embeddings = []
        for begin in range(0, len(samples) - WINDOW + 1, HOP):
            interpreter.set_tensor(entry, samples[None, begin : begin + WINDOW])
            interpreter.invoke()
            embeddings.append(interpreter.get_tensor(pool)[0].copy())
        rows.append(np.mean(embeddings, 0))
    return np.stack(rows)


def regression(x: np.ndarray, y: np.ndarray, speakers: np.ndarray) -> Any:
    """Standardisation and logistic regression; C is chosen by leaving out training speakers."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-3))
    grid = {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1]}
    search = GridSearchCV(pipeline, grid, scoring="balanced_accuracy", cv=GroupKFold(min(4, len(set(speakers)))))
    return search.fit(x, y, groups=speakers)
