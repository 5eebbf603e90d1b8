"""SEWA from nine systems' traces, in cross-validation: what a network adds to their mean, and how to weigh that mean.

`folds` and `cultures` make the rows of ours in docs/sewa.md: the candidates differ in how much the five systems of
sound weigh beside the four of faces, and each dimension of each fold averages the two that are best on the dev parts of
the other folds. `table` compares networks that add to the same prior, five fusions with every temporal model, and `all`
every fusion. Of those left out of `table`, bottleneck (18 blocks of attention over 400 frames) had not done twenty
steps on two cores after six minutes, and late has a temporal model for each of nine streams.

Expected: docs/sewa.md; `all` is not measured. Hardware: two CPU cores, minutes; `table` an hour, `all` many.

    python launch.py sweep --config=configs/ablations/sewa.py:folds --workdir=runs/sewa --config.data.features=DATA/sewa

Variants: `folds`, 7 folds by recording; `cultures`, German tested after Hungarian and the reverse; `table`; `all`;
`smoke` (one step).
"""

from typing import Any

from avemo.models.fusion import FUSIONS
from avemo.sweep import plan
from configs.results.sewa import FACES, SOUND

VARIANTS = ("folds", "cultures", "table", "all", "smoke")
EXPERIMENT = "configs/results/sewa.py"
# Only the scale and the offset of the weighted mean are learned, four numbers that have some way to go.
PRIOR: dict[str, Any] = {
    "model.residual": 0.0,
    "optimizer.freeze": ("prior/weights",),
    "optimizer.learning_rate": 0.05,
    "optimizer.weight_decay": 0.0,
}
TEMPORAL: dict[str, dict[str, Any]] = {
    "none": {},
    **{name: {"features": 16} for name in ("gru", "bigru", "lstm", "mingru", "tcn", "transformer")},
    "s5": {"features": 16, "states": 8, "num_layers": 1},
}
# Of the fusions, those that take nine streams: tfn is refused, cross_attention would have 72 blocks of attention over
# 400 frames.
NINE = tuple(name for name in FUSIONS if name not in ("audio", "visual", "tfn", "cross_attention"))
TABLE = ("attention_pool", "concat", "film", "gmu", "joint_cross_attention")


def weights(sound: float) -> tuple[float, ...]:
    """The weight of each stream in the prior, a face's being 1."""
    return (sound,) * len(SOUND) + (1.0,) * len(FACES)


def network(fusion: str, temporal: str) -> dict[str, Any]:
    """A network that adds to the prior."""
    more = {"model.fusion_args.leader": FACES[0]} if fusion == "leader_follower" else {}
    return {
        "name": f"{fusion}, {temporal}",
        "model.fusion": fusion,
        "model.temporal": temporal,
        "model.temporal_args": TEMPORAL[temporal],
        **more,
    }


def get_config(variant: str = "folds") -> plan.Sweep:
    if variant in ("folds", "cultures", "smoke"):
        candidates = [
            {"name": f"sound {sound:g}", "model.prior_weights": weights(sound)} for sound in (1.0, 0.37, 0.14, 0.02)
        ]
        return plan.Sweep(
            title="SEWA: the weight of sound",
            experiment=f"{EXPERIMENT}:smoke" if variant == "smoke" else EXPERIMENT,
            settings=[{"name": "avemo", **PRIOR}],
            search=candidates[:2] if variant == "smoke" else candidates,
            seeds=1,
            folds=7 if variant == "folds" else 2,
            fold_by="recording" if variant == "folds" else "group",
            dev_parts=3,
            per_dimension=True,
            average=2,
            postprocess=False,
        )
    fusions = TABLE if variant == "table" else NINE
    return plan.Sweep(
        title="SEWA: fusions and temporal models",
        experiment=EXPERIMENT,
        settings=[
            {"name": "prior alone", **PRIOR},
            *(network(fusion, temporal) for fusion in fusions for temporal in TEMPORAL),
        ],
        common={"model.prior_weights": weights(0.37), "model.modality_dropout": 0.5},
        seeds=5,
        folds=7,
        fold_by="recording",
        dev_parts=0,
        postprocess=False,
        reference="prior alone",
    )
