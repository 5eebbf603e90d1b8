"""The raters' delay, searched on dev as the baselines of AVEC 2016 and 2018 do: every 0.4 s.

Expected: not run here, RECOLA needs a licence.
Hardware: as the experiment, times the number of delays and seeds; not measured.

    python launch.py sweep --config=configs/recola/delays.py --workdir=runs/avec2016_delays \\
        --config.data.features=DATA/avec2016

Variants: default (AVEC 2016, 0 to 8 s); `avec2018` (0 to 9.6 s); `smoke` (two delays, one step).
"""

from avemo.sweep import plan

VARIANTS = ("", "avec2018", "smoke")
STEP = 0.4  # s


def get_config(variant: str = "") -> plan.Sweep:
    experiment = {
        "": "configs/recola/avec2016.py",
        "avec2018": "configs/recola/avec2018.py",
        "smoke": "configs/recola/avec2016.py:smoke",
    }[variant]
    last = {"": 8.0, "avec2018": 9.6, "smoke": STEP}[variant]
    delays = tuple(round(STEP * number, 1) for number in range(round(last / STEP) + 1))
    return plan.Sweep(
        title="Delay of the raters",
        experiment=experiment,
        settings=plan.grid({"data.delay": delays}),
        seeds=2 if variant == "smoke" else 3,
    )
