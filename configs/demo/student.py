"""The demo's student: `configs/paper/student.py` with the demo teacher's numbers.

Variants: `synthetic` (default), `real`, `smoke`.
"""

from ml_collections import ConfigDict

from configs.demo import teacher
from configs.paper import student


def get_config(variant: str = "synthetic") -> ConfigDict:
    config = student.get_config()
    config.data.batch.unlabelled = 8 if variant == "smoke" else 16
    return teacher.shrink(config, variant)
