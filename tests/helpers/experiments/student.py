"""The demo's student with the network of `teacher.py` beside it."""

from ml_collections import ConfigDict

from configs.demo import student
from helpers.experiments import teacher

VARIANTS = ("smoke",)


def get_config(variant: str = "smoke") -> ConfigDict:
    return teacher.shrink(student.get_config(variant))
