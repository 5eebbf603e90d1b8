"""RECOLA from the feature sets of AVEC 2018 (gold-standard sub-challenge): functionals of 4 s, every 0.4 s.

eGeMAPS, appearance, action units, ECG and heart rate, on the challenge's split and its gold standard `gs_1`; another
one is read with `--labels=labels/gs_2/{dimension}`, and the six raters with `--labels=labels/individual/{dimension}`.
Windows of another length, 3 to 9 s, are read with `--audio`, `--visual` and `--physio`. The baseline predicts every
0.4 s, searches the delay from 0 to 9.6 s by 0.4 s on dev, fits centring and scaling there, and reports the mean CCC
over recordings (Ringeval et al. 2018 and its scripts), so `ccc_recording_mean` chooses the checkpoint.

Expected: not run here, RECOLA needs a licence; the layout is tested on fixtures.
Hardware: estimated at minutes on one GPU or on two CPU cores; not measured.

    python -m data_prep features --preset=avec2018 --source=AVEC2018 --output=DATA --name=avec2018
    python launch.py sweep --config=configs/recola/delays.py:avec2018 --workdir=runs/avec2018_delays \\
        --config.data.features=DATA/avec2018
    python launch.py train --config=configs/recola/avec2018.py --workdir=runs/avec2018 \\
        --config.data.features=DATA/avec2018 --config.data.delay=BEST
    python -m avemo.postprocess --workdir=runs/avec2018
    python -c "from avemo import report; report.write('runs/avec2018')"

Variants: `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs import common
from configs.recola import avec2016

VARIANTS = ("", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    config = avec2016.get_config()
    config.best_metric = "dev/ccc_recording_mean"
    config.steps = 1000  # A
    config.data.sequence_length, config.data.sequence_hop = 150, 50  # frames: 60 s at 2.5 Hz (A)
    if variant == "smoke":
        config.data.batch.sequences = 4
        config.data.sequence_length, config.data.sequence_hop = 20, 10
        return common.smoke(config)
    return config
