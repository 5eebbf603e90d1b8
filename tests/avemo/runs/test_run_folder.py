"""A damaged file in a run folder gives one line that names it."""

import pytest
from ml_collections import ConfigDict

from avemo.runs import run_folder
from media.errors import UserError


@pytest.mark.parametrize("text", ["", '{"step": 4, "class_na', "[1, 2]", "null"])
def test_a_damaged_result_names_its_file(text, tmp_path):
    (tmp_path / "result.json").write_text(text)
    for read in (
        lambda: run_folder.finished(tmp_path, ConfigDict({"steps": 4})),
        lambda: run_folder.class_names(tmp_path),
    ):
        with pytest.raises(UserError, match=r"result\.json cannot be read .*run `launch.py train` again") as error:
            read()
        assert "\n" not in str(error.value)


def test_damaged_fingerprints_name_their_file(tmp_path):
    (tmp_path / "data.json").write_text('{"clips": ')
    with pytest.raises(UserError, match=r"data\.json cannot be read"):
        run_folder.check_fingerprints({}, tmp_path)


def test_a_run_that_is_not_complete_has_no_result_and_no_classes(tmp_path):
    assert run_folder.finished(tmp_path, ConfigDict({"steps": 4})) is None
    assert run_folder.class_names(tmp_path) == ()
