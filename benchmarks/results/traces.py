"""Valence and arousal traces of unseen synthetic speakers, beside the ceiling that the raters' noise sets."""

import json
from typing import Any

import numpy as np

from avemo import metrics
from avemo.metrics import significance
from avemo.runs import reader
from avemo.runs.reader import RecordingTraces
from avemo.tasks.audiovisual_data import undo_delay
from benchmarks.results import measures
from benchmarks.results.experiment import Experiment
from benchmarks.results.steps import Place, Step, pretrained, train
from data_prep.synthetic import corpus, latent, raters, recording
from media.errors import UserError

SETTINGS = corpus.Settings(recordings=(9, 4, 9), seconds=60.0)
CORPUS = "synthetic_corpus"
RUN = "traces_fusion"
DIMENSIONS = ("valence", "arousal")


def _data(place: Place) -> list[Step]:
    """The steps that make the corpus and its shards."""
    source = place.data(CORPUS)
    flags = (
        f"--seed={SETTINGS.seed}",
        f"--recordings={','.join(map(str, SETTINGS.recordings))}",
        f"--seconds={SETTINGS.seconds:g}",
    )

    def shards(name: str, folder: str, key: str) -> Step:
        arguments = (f"--source={source / folder}", f"--output={place.work / 'data'}", f"--name={key}", "--workers=2")
        return Step(f"data/{key}", ("-m", "data_prep", name, *arguments))

    return [
        Step(f"data/{CORPUS}", ("-m", "data_prep.synthetic", f"--output={source}", "--workers=2", *flags)),
        shards("affectnet", "affectnet", "synthetic_faces"),
        shards("fec", "fec", "synthetic_triplets"),
        shards("recola", "recola", "synthetic_clips"),
    ]


def _steps(place: Place) -> list[Step]:
    clips = place.data("synthetic_clips")
    weights, features = "yamnet_synthetic", place.work / "features" / "synthetic"
    runs = f"{place.run('traces_face')},{place.run('traces_audio')}"
    return [
        *_data(place),
        train(
            place,
            "traces_face",
            "configs/results/traces.py:face",
            f"data.faces={place.data('synthetic_faces')}",
            f"data.triplets={place.data('synthetic_triplets')}",
        ),
        pretrained(place, "yamnet", "yamnet.tflite", weights, f"--statistics={clips}"),
        train(
            place,
            "traces_audio",
            "configs/results/traces.py:audio",
            f"data.clips={clips}",
            f"model.init_from={place.weights(weights)}",
        ),
        Step(
            "features/synthetic",
            ("launch.py", "extract", f"--workdir={runs}", f"--data={clips}", f"--output={features}"),
        ),
        train(place, RUN, "configs/results/traces.py:fusion", f"data.features={features}"),
        Step(
            "agreement/ceap",
            ("-m", "data_prep.agreement", f"--source={place.source / 'ceap'}", f"--output={place.work / 'ceap.json'}"),
        ),
    ]


def _score(traces: list[np.ndarray], rows: list[RecordingTraces], column: slice = slice(None)) -> significance.Score:
    """The CCC over all frames, of both dimensions or one; resampled by recording."""
    targets = [row.target[:, column] for row in rows]  # NaN without a rating
    evidence = metrics.recording_sums([t[:, column] for t in traces], targets, [np.ones(len(t), bool) for t in targets])
    return significance.ccc_concatenated(evidence[None])


def _late(trace: np.ndarray) -> np.ndarray:
    """The trace delayed like the raters."""
    return undo_delay(trace, SETTINGS.delay, latent.FPS)


def _truth(place: Place, name: str, length: int) -> np.ndarray:
    path = place.data(CORPUS) / "recola" / "synthetic_truth" / f"{name}.csv"
    try:
        return np.loadtxt(path, delimiter=",", skiprows=1, usecols=(1, 2))[:length]
    except OSError as error:
        raise UserError(f"{path}: the corpus's true traces cannot be read; prepare the corpus again.") from error


def _cues(act: recording.Performance) -> np.ndarray:
    """The cues in face and voice and when they show, 3 s either side of each frame: `[T, 31 · 6]`."""
    frames = len(act.truth)
    seen, said = (mask[:frames, None].astype(float) for mask in (act.face_visible, act.speaking))
    shown = np.concatenate([act.face * seen, seen, act.voice[:frames] * said, said], 1)
    padded = np.pad(shown, [(75, 75), (0, 0)], mode="edge")
    return np.concatenate([padded[lag : lag + frames] for lag in range(0, 151, 5)], 1)


def _readers(names: list[str], delay: int, count: int = 60) -> list[np.ndarray]:
    """Traces `[T, 2]` that a linear reader of the true cues predicts, after learning from `count` other recordings.

    It sees no noise of picture or sound, so it shows how much the cues say about the latent traces.
    """
    frames, panel = round(SETTINGS.seconds * latent.FPS), raters.Panel(delay=SETTINGS.delay)
    inputs, outputs = [], []
    for number in range(count):
        seed, name = SETTINGS.seed + 1, f"reader {number}"
        act = recording.perform(seed, name, frames, latent.Cues())
        gold = panel.rate(latent.stream(seed, name, "raters"), act.truth).mean(1)
        inputs.append(_cues(act)[: frames - delay])
        outputs.append(gold[delay:])
    x, y = np.concatenate(inputs), np.concatenate(outputs)
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    x = np.c_[(x - mean) / deviation, np.ones(len(x))]
    solution = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ y)
    read = []
    for name in names:
        cues = _cues(recording.perform(SETTINGS.seed, name, frames, latent.Cues()))
        read.append(_late(np.c_[(cues - mean) / deviation, np.ones(len(cues))] @ solution))
    return read


def _measure(place: Place) -> dict[str, Any]:
    delay = round(SETTINGS.delay * latent.FPS)
    rows = reader.load(place.run(RUN)).traces("test")
    truth = [_late(_truth(place, row.recording, len(row.target))) for row in rows]
    readers = _readers([row.recording for row in rows], delay)
    readers = [trace[: len(t)] for trace, t in zip(readers, truth, strict=True)]
    systems = {
        "avemo": [row.prediction for row in rows],
        "a linear reader of the cues themselves": readers,
        "ceiling: the latent traces against the raters' mean": truth,
    }
    scores, found = [], {}
    for name, traces in systems.items():
        found[name] = _score(traces, rows)
        each = {d: _score(traces, rows, slice(i, i + 1)).mean() for i, d in enumerate(DIMENSIONS)}
        scores.append(measures.score(name, found[name], ours=name.startswith("avemo"), **each))
    ours, *_, ceiling = found
    share = {name: found[name].mean() / found[ceiling].mean() for name in found}
    ceap = json.loads((place.work / "ceap.json").read_text())["mean"]
    return {
        "metric": "CCC",
        "unit": "recording",
        "scores": scores,
        "differences": [measures.difference(ours, name, found[ours], found[name]) for name in found if name != ours],
        "share_of_ceiling": share,
        "share": share[ours],
        "reader_share": share["a linear reader of the cues themselves"],
        "checks": [
            measures.check("0.85 of the ceiling", share[ours] >= 0.85),
            measures.check("aim 0.95 of the ceiling", share[ours] >= 0.95),
        ],
        "raters": {
            "synthetic": json.loads((place.data(CORPUS) / "ceiling.json").read_text())["ccc"],
            "ceap": ceap,
        },
    }


EXPERIMENTS = {
    "traces": Experiment(
        "traces",
        "Valence and arousal traces",
        f"synthetic corpus, seed {SETTINGS.seed}: {SETTINGS.recordings[0]} speakers to train on, "
        f"{SETTINGS.recordings[1]} for dev, {SETTINGS.recordings[2]} unseen, a minute each; CCC over all test frames "
        "with the mean of six raters; the ceiling is the score of the true latent traces, delayed like the raters",
        _steps,
        _measure,
    )
}
