"""Reaction delay, loss, sequence length and hop, and every rater's own head against the gold standard.

Kinds of gold standard (mean, EWE, CCC centring) are made when the corpus is prepared: sweep over prepared folders with
settings of `data.features`. Six raters are RECOLA's; for another number see `num_raters`.

Variants as in configs/ablations/fusion.py (not `real`: emotions have no delay).

    python launch.py sweep --config=configs/ablations/targets.py --workdir=runs/targets --config.data.features=FEATURES
"""

from avemo.sweep import plan
from configs.ablations.fusion import EXPERIMENTS


def get_config(variant: str = "") -> plan.Sweep:
    length = 50 if variant == "smoke" else 125
    return plan.Sweep(
        title="Targets, delay and loss",
        experiment=plan.variant_of({k: v for k, v in EXPERIMENTS.items() if k != "real"}, variant),
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
        note="The delay that training applies to the labels is undone on the predictions before scoring.",
    )
