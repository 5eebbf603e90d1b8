"""Run folders named on the command line."""

import os

from avemo.runs import installed


def test_a_comma_in_a_folders_name_does_not_separate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b,c", "runs, new/x"):
        os.makedirs(name)
    assert installed.separate("a,b,c") == ["a", "b,c"]
    assert installed.separate("b,c") == ["b,c"]
    assert installed.separate("runs, new/x,a,") == ["runs, new/x", "a"]
    assert installed.separate("a,none") == ["a", "none"]
    assert installed.separate("") == []
