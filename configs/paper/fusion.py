"""Fusion and time: model-level fusion of cached features and a recurrent network, valence and arousal per frame
(arXiv 2103.09154, P; sizes A).

Each modality keeps its own encoder. The hidden representations are joined and a recurrent network runs over the joint
sequence. The default is a GRU over `scan`; the thesis has an LSTM (S): `--config.model.temporal=lstm`.

Expected: no RECOLA figure of the paper is certain, so none is quoted. Not measured here: RECOLA needs a licence.
Hardware: estimated at minutes on one GPU; a laptop will do.

    python launch.py extract --workdir=runs/student,runs/audio --data=DATA/recola --output=DATA/recola_features
    python launch.py train --config=configs/paper/fusion.py --workdir=runs/fusion \\
        --config.data.features=DATA/recola_features

Variants: `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    config = common.base("audiovisual")
    config.steps = 3000  # A
    config.log_every, config.eval_every = 50, 250
    config.best_metric = "dev/ccc_mean"
    config.optimizer.update(
        {"name": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup": 0.05, "clip_norm": 1.0}
    )  # A
    config.data.update(
        {
            "features": "",
            "batch": {"sequences": 16},
            "sequence_length": 300,
            "sequence_hop": 150,  # frames: 12 s at 25 Hz (A)
            "delay": 2.8,  # s (A)
            "eval_batch": 8,
            "fold": "auto",  # i/n: cross-validation, tested on fold i of n; auto: the data set's own splits
            "fold_by": "auto",  # what a fold is of: recording, subject (auto), group
            "dev_part": "auto",  # i/n: which part of the other folds' subjects is dev; auto: none
            "standardise": "auto",  # features by the moments of train, or of their own group or recording; or off
            "eval_length": "auto",  # frames of the windows that are overlapped at evaluation; auto: whole recordings
            "eval_hop": "auto",  # frames between them; auto: half their length
            "stream_scores": "auto",  # on, off: score each stream alone; auto: of two streams
        }
    )
    config.model = {
        "streams": "auto",  # names of the features' streams, by default all that the data set has
        "fusion": "model_level",
        "fusion_args": {"features": 128},
        "temporal": "gru",
        "temporal_args": {"features": 128},
        "num_classes": 0,
        "num_raters": 0,  # above 0: one head per rater, trained on that rater's trace instead of the gold standard
        "dropout": 0.2,
        "modality_dropout": 0.0,  # share of the training sequences that lose one modality
        "missing": "zero",  # or "token": a learned vector replaces an absent modality
        "dtype": "auto",  # bfloat16 on an accelerator, float32 on a CPU (docs/precision.md)
    }
    config.loss = {"per": "batch", "mse_weight": 0.0, "label_smoothing": 0.0}
    config.loss.dimensions = "auto"  # weights of valence and arousal, such as 2,1; auto: equal
    if variant == "smoke":
        config.data.batch.sequences = 8
        config.data.sequence_length, config.data.sequence_hop = 50, 25
        return common.smoke(config)
    return config
