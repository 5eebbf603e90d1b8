"""RECOLA from the feature sets of AVEC 2016: eGeMAPS, appearance and geometry of the face, on the challenge's split.

Each set comes once for arousal and once for valence, because the challenge's windows differ; a stream holds both. Train
and dev have nine recordings of 7,501 frames each, 40 ms apart. The labels of test are not public. The challenge's
baseline searches the raters' delay from 0 to 8 s by 0.4 s on dev, moves the labels earlier in training and the
predictions later for scoring, and fits a median filter of up to 20 s, centring and scaling on dev (Valstar et al. 2016
and its scripts): `configs/recola/delays.py` and `avemo.postprocess` do the same. It reports CCC over all frames of dev,
`ccc_mean`, so that is what chooses the checkpoint.

Expected: not run here, RECOLA needs a licence; the layout is tested on fixtures.
Hardware: estimated at minutes on one GPU, and within two hours on two CPU cores; not measured.

    python -m data_prep features --preset=avec2016_av --source=AVEC2016 --output=DATA --name=avec2016
    python launch.py sweep --config=configs/recola/delays.py --workdir=runs/avec2016_delays \\
        --config.data.features=DATA/avec2016
    python launch.py train --config=configs/recola/avec2016.py --workdir=runs/avec2016 \\
        --config.data.features=DATA/avec2016 --config.data.delay=BEST
    python -m avemo.postprocess --workdir=runs/avec2016
    python -c "from avemo import report; report.write('runs/avec2016')"

`--preset=avec2016` keeps all eight sets as streams of their own, with ECG, heart rate and skin conductance;
`--config.model.streams` chooses among them.

Variants: `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import fusion

VARIANTS = ("", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    config = fusion.get_config()
    config.best_metric = "dev/ccc_mean"
    config.steps, config.log_every, config.eval_every = 2000, 50, 100  # A
    config.data.batch.sequences = 16  # A
    config.data.sequence_length, config.data.sequence_hop = 750, 250  # frames: 30 s at 25 Hz (A)
    config.data.eval_batch = 3
    config.model.dropout = 0.3  # A
    if variant == "smoke":
        config.data.batch.sequences = 8
        config.data.sequence_length, config.data.sequence_hop = 50, 25
        return common.smoke(config)
    return config
