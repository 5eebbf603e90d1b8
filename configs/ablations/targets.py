"""Reaction delay, loss, sequence length and hop, and one head per rater against the gold standard.

The kind of gold standard (mean, EWE, CCC centring) is chosen when a corpus is prepared: to compare kinds, sweep over
prepared folders with settings of `data.features`. RECOLA has six raters; for another number set `num_raters`.

Expected: not measured. Hardware: two CPU cores for `demo`.

    python launch.py sweep --config=configs/ablations/targets.py --workdir=runs/targets --config.data.features=FEATURES

Variants: as in configs/ablations/fusion.py, without `real`, because emotions have no delay.
"""

from avemo.sweep import plan
from configs.ablations.fusion import EXPERIMENTS

VARIANTS = tuple(name for name in EXPERIMENTS if name != "real")  # emotions have no delay


def get_config(variant: str = "") -> plan.Sweep:
    length = 50 if variant == "smoke" else 125
    return plan.Sweep(
        title="Targets, delay and loss",
        experiment=EXPERIMENTS[variant],
        settings=[
            {"name": "as configured"},
            *({"name": f"delay {delay:g} s", "data.delay": delay} for delay in (0.0, 1.0, 2.0, 2.8, 4.0)),
            {"name": "CCC per recording", "loss.per": "recording"},
            {"name": "1 − CCC + MSE", "loss.mse_weight": 1.0},  # noqa: RUF001
            {"name": f"{length} frames", "data.sequence_length": length, "data.sequence_hop": length // 2},
            {"name": "six raters' heads", "model.num_raters": 6},
        ],
        seeds=2 if variant == "smoke" else 5,
        reference="as configured",
        note="Training shifts the labels by the delay; the predictions are shifted back before scoring.",
    )
