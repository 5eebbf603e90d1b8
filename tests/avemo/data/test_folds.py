"""Folds: whole units in one part, nothing of the tested part in the others, one line for what is wrong."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from avemo.data import folds
from avemo.data.features import Recording
from media.errors import UserError


def recording(name, subject="", group=""):
    nothing, mask = np.zeros((1, 0), np.float32), np.ones(1, bool)
    return Recording(
        *(name, subject, 10.0, np.zeros(1), nothing, nothing, mask, mask),
        *(np.zeros((1, 2), np.float32), mask, np.zeros((1, 0, 2), np.float32), -1),
        group=group,
    )


TEN = [recording(f"r{n}", f"s{n // 2}", "DE" if n < 6 else "HU") for n in range(10)]


def split(**data):
    return folds.of_config(ConfigDict({"data": data})).split(TEN)


def test_recording_i_of_the_sorted_is_tested_in_fold_i():
    parts = [split(fold=f"{n}/3", fold_by="recording") for n in range(3)]
    assert [p["test"] for p in parts] == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert all(sorted([*p["train"], *p["test"]]) == list(range(10)) and not p["dev"] for p in parts)


def test_a_fold_parts_no_subject_unless_it_is_told_to():
    parts = [split(fold=f"{n}/3") for n in range(3)]
    assert [p["test"] for p in parts] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5]]


def test_dev_is_cut_out_of_the_learned_part_by_subject():
    parts = split(fold="0/2", fold_by="group", dev_part="1/2")  # DE is tested
    assert parts == {"test": [0, 1, 2, 3, 4, 5], "dev": [8, 9], "train": [6, 7]}
    by_subject = split(fold="1/5", fold_by="subject", dev_part="0/4")
    assert by_subject == {"test": [2, 3], "dev": [0, 1], "train": [4, 5, 6, 7, 8, 9]}


def test_without_a_fold_the_data_set_keeps_its_splits():
    assert folds.of_config(ConfigDict({"data": {}})) is None
    assert folds.of_config(ConfigDict({"data": {"fold": "auto"}})) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"fold": "7/7"}, "data.fold=7/7 is not i/n"),
        ({"fold": "x"}, "data.fold=x is not i/n"),
        ({"fold": "0/1"}, "at least two folds"),
        ({"fold": "0/3", "fold_by": "speaker"}, "unknown data.fold_by"),
        ({"fold": "0/3", "fold_by": "group"}, "3 folds by group, but there are 2"),
        ({"fold": "0/2", "fold_by": "group", "dev_part": "0/1"}, "no recording for train"),
        ({"fold": "0/2", "fold_by": "group", "dev_part": "2/3"}, "no recording for dev"),
    ],
)
def test_wrong_folds_are_user_errors(data, message):
    with pytest.raises(UserError, match=message):
        split(**data)


def test_a_recording_without_a_group_and_a_name_twice_are_user_errors():
    fold = folds.Fold(0, 2, "group")
    with pytest.raises(UserError, match="'r0' has no group"):
        fold.split([dataclasses.replace(TEN[0], group=""), *TEN[1:]])
    with pytest.raises(UserError, match="two recordings are called 'r1'"):
        folds.order([*TEN, TEN[1]])
