import json
import sys

import pytest

from avemo.data import shards
from media.errors import UserError


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type", "json"])
def test_a_schema_imports_nothing_but_tfds(tmp_path, monkeypatch, key):
    (tmp_path / "planted.py").write_text("raise SystemExit('a module of the data set ran')")
    monkeypatch.syspath_prepend(tmp_path)
    if key == "json":
        planted = {"jsonFeature": {"json": json.dumps({"type": "planted.Feature", "content": {}})}}
    else:
        planted = {key: "planted.Feature", "content": {}}
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "features.json").write_text(json.dumps({"featuresDict": {"features": {"x": planted}}}))
    with pytest.raises(UserError, match=r"features.json names the class 'planted.Feature'.*do not trust"):
        shards.Shards(tmp_path, "train")
    assert "planted" not in sys.modules


def test_a_damaged_schema_is_one_line(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "features.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"cannot be opened as a data set .*prepare it again"):
        shards.Shards(tmp_path, "train")
