"""Speech emotion on RAVDESS: eight emotions, tested on speakers never heard in training."""

from typing import Any

import numpy as np

from avemo import metrics
from avemo.metrics import significance
from benchmarks.results import measures
from benchmarks.results.experiment import Experiment
from benchmarks.results.steps import Place, Step, prepare, pretrained, train
from data_prep.corpora.ravdess import EMOTIONS

# Test speakers and the dev speaker of each fold; the other eight train. Speaker 1 is tested in the first fold, so that
# fold's encoder can serve the takes of that actor (`benchmarks.results.fusion`).
FOLDS = (("1,2,3", "12"), ("4,5,6", "1"), ("7,8,9", "4"), ("10,11,12", "7"))
PEERS = {"egemaps": "openSMILE eGeMAPS + LR", "yamnet": "YAMNet mean + LR", "both": "eGeMAPS and YAMNet + LR"}
OURS = "avemo, YAMNet fine-tuned"


def encoder(place: Place, fold: int) -> list[Step]:
    """The steps that make one fold's audio encoder, the run `speech_f{fold}`."""
    test, dev = FOLDS[fold]
    speakers = (f"--test_speakers={test}", f"--dev_speakers={dev}")
    name = f"speech_f{fold}"
    data, weights = place.data(name), f"yamnet_f{fold}"
    return [
        prepare(place, "ravdess", "ravdess_speech", name, "--modality=audio", "--split=speaker", *speakers),
        # BatchNorm gets the statistics of this fold's training data.
        pretrained(place, "yamnet", "yamnet.tflite", weights, f"--statistics={data}"),
        train(
            place, name, "configs/results/audio.py", f"data.clips={data}", f"model.init_from={place.weights(weights)}"
        ),
    ]


def peers(place: Place) -> Step:
    """Logistic regression on published features, in the same folds."""
    folds = ";".join(test for test, _ in FOLDS)
    arguments = (
        f"--source={place.source / 'ravdess_speech'}",
        f"--yamnet={place.source / 'weights' / 'yamnet.tflite'}",
        f"--folds={folds}",
        f"--output={place.peer('speech')}",
    )
    return Step("peers/speech", ("-m", "benchmarks.peers.speech", *arguments), peer=True)


def _steps(place: Place) -> list[Step]:
    return [*(step for fold in range(len(FOLDS)) for step in encoder(place, fold)), peers(place)]


def _measure(place: Place) -> dict[str, Any]:
    runs = [place.predictions(f"speech_f{fold}", "test") for fold in range(len(FOLDS))]
    ours = {key: np.concatenate([run[key] for run in runs]) for key in ("recording", "label", "probability")}
    labels = ours["label"]
    theirs = measures.peer(place.peer("speech"), ours["recording"], labels)
    systems = {OURS: ours["probability"]}
    systems |= {name: theirs[f"probability_{key}"] for key, name in PEERS.items()}
    found = {name: significance.accuracy(labels, p.argmax(1)[None]) for name, p in systems.items()}
    scores = []
    for name, probability in systems.items():
        uar = significance.uar(labels, probability.argmax(1)[None], len(EMOTIONS))
        scores.append(measures.score(name, found[name], ours=name == OURS, uar=uar.mean()))
    values = metrics.class_scores(labels, systems[OURS])
    hits = systems[OURS].argmax(1) == labels
    accuracy = found[OURS].mean()
    return {
        "metric": "accuracy",
        "unit": "clip",
        "scores": scores,
        "differences": [measures.difference(OURS, name, found[OURS], found[name]) for name in PEERS.values()],
        "checks": [
            measures.check("above all three references", all(accuracy > found[name].mean() for name in PEERS.values())),
            measures.check("reach 0.58", accuracy >= 0.58),
            measures.check("aim 0.70", accuracy >= 0.70),
        ],
        "recall": {name: float(hits[labels == index].mean()) for index, name in enumerate(EMOTIONS)},
        "confusion": metrics.confusion(labels, systems[OURS].argmax(1), len(EMOTIONS)).astype(int).tolist(),
        "uar": values["uar"],
        "macro_f1": values["macro_f1"],
        "ece": values["ece"],
        "per_fold": [
            {
                "speakers": FOLDS[fold][0],
                "accuracy": float((run["probability"].argmax(1) == run["label"]).mean()),
                "minutes": round(place.result(f"speech_f{fold}")["seconds"] / 60, 1),
            }
            for fold, run in enumerate(runs)
        ],
        "minutes": round(sum(place.result(f"speech_f{fold}")["seconds"] for fold in range(len(FOLDS))) / 60, 1),
    }


EXPERIMENTS = {
    "speech": Experiment(
        "speech",
        "Speech emotion",
        "RAVDESS speech, 720 takes, 12 speakers, 8 classes; four folds, each tested on three speakers that were used "
        "neither in training nor to choose the references' C; accuracy over the clips of all folds",
        _steps,
        _measure,
    )
}
