"""The demo's student: `configs/paper/student.py` with the demo teacher's sizes.

Expected: the accuracy below the table in README.md, above its teacher's. `real` is not measured.
Hardware: two CPU cores; README.md says how long the whole demo took.

`python launch.py demo --workdir=runs/demo` prepares the data and runs this command:

    python launch.py train --config=configs/demo/student.py:synthetic --workdir=runs/demo/student \\
        --config.teacher=runs/demo/teacher --config.data.faces=runs/demo/data/affectnet \\
        --config.data.triplets=runs/demo/data/fec --config.data.unlabelled=runs/demo/data/unlabelled --config.seed=0

Variants: `synthetic` (default); `real`, FER+ and unlabelled video frames; `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs.demo import teacher
from configs.paper import student

VARIANTS = ("synthetic", "real", "smoke")


def get_config(variant: str = "synthetic") -> ConfigDict:
    config = student.get_config()
    config.data.batch.unlabelled = 8 if variant == "smoke" else 16
    return teacher.shrink(config, variant)
