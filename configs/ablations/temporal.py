"""Every temporal model over the joint sequence of model-level fusion.

The reference is the project's GRU; the thesis has an LSTM (S).

Expected: not measured. Hardware: two CPU cores for `demo`.

    python launch.py sweep --config=configs/ablations/temporal.py --workdir=runs/temporal \\
        --config.data.features=FEATURES

Variants: as in configs/ablations/fusion.py.
"""

from avemo.sweep import plan
from configs.ablations.fusion import EXPERIMENTS

VARIANTS = tuple(EXPERIMENTS)


def get_config(variant: str = "") -> plan.Sweep:
    plain = [{"name": name, "model.temporal": name} for name in ("gru", "bigru", "lstm", "mingru", "tcn", "s5")]
    return plan.Sweep(
        title="Temporal models",
        experiment=EXPERIMENTS[variant],
        settings=[
            *plain,
            {"name": "transformer", "model.temporal": "transformer"},
            {
                "name": "transformer, causal",
                "model.temporal": "transformer",
                "model.temporal_args.causal": True,
            },
            # It takes no arguments: an empty group replaces the experiment's.
            {"name": "none", "model.temporal": "none", "model.temporal_args": {}},
        ],
        # The row's recurrence is the only one: the model-level encoders have none.
        common={"model.fusion_args.encoder": "dense"},
        seeds=2 if variant == "smoke" else 5,
        reference="gru",
    )
