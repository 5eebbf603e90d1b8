"""Every temporal model over the joint sequence of model-level fusion.

The reference is the project's GRU; the thesis has an LSTM (S).

Variants as in configs/ablations/fusion.py.

    python launch.py sweep --config=configs/ablations/temporal.py --workdir=runs/temporal \\
        --config.data.features=FEATURES
"""

from avemo.sweep import plan
from configs.ablations.fusion import EXPERIMENTS


def get_config(variant: str = "") -> plan.Sweep:
    plain = [{"name": name, "model.temporal": name} for name in ("gru", "bigru", "lstm", "mingru", "tcn")]
    return plan.Sweep(
        title="Temporal models",
        experiment=plan.variant_of(EXPERIMENTS, variant),
        settings=[
            *plain,
            {"name": "transformer", "model.temporal": "transformer"},
            {
                "name": "transformer, causal",
                "model.temporal": "transformer",
                "model.temporal_args.causal": True,
            },
            # No number to set: the group of the experiment is replaced by an empty one.
            {"name": "none", "model.temporal": "none", "model.temporal_args": {}},
        ],
        # One recurrence only, that of the row: model-level encoders without their own.
        common={"model.fusion_args.encoder": "dense"},
        seeds=2 if variant == "smoke" else 5,
        reference="gru",
    )
