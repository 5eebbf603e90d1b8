"""A damaged file in a run folder gives one line that names it."""

import jax
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


def test_a_dtype_that_the_platform_decides_is_recorded_and_kept(tmp_path, monkeypatch):
    asked = ConfigDict({"steps": 1, "model": {"dtype": "auto"}})
    assert run_folder.decide(asked, tmp_path).model.dtype == "float32"  # a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    decided = run_folder.decide(asked, tmp_path)
    assert decided.model.dtype == "bfloat16"
    assert asked.model.dtype == "auto"
    run_folder.prepare_workdir(decided, tmp_path)
    monkeypatch.undo()
    again = run_folder.decide(asked, tmp_path)  # resumed on a CPU
    assert again.model.dtype == "bfloat16"
    run_folder.prepare_workdir(again, tmp_path)
    named = ConfigDict({"steps": 1, "model": {"dtype": "float32"}})
    with pytest.raises(UserError, match=r"model\.dtype: 'bfloat16' -> 'float32'"):
        run_folder.prepare_workdir(run_folder.decide(named, tmp_path), tmp_path)
