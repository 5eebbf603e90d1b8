"""`model.init_from` names nothing, a run, or converted weights."""

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from avemo.runs import checkpoints
from avemo.tasks import initial_weights
from media.errors import UserError


def test_init_from_a_run_takes_its_best_checkpoint(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    stored = {"params": {"neck": {"w": np.full(2, 3.0)}}}
    monkeypatch.setattr(checkpoints, "load", lambda folder: (None, 7, stored))
    fresh = {"params": {"neck": {"w": jnp.zeros(2)}}}
    variables = initial_weights.from_pretrained(fresh, ConfigDict({"model": {"init_from": str(tmp_path)}}))
    np.testing.assert_array_equal(variables["params"]["neck"]["w"], 3)
    fresh["params"]["neck"]["w"] = jnp.zeros(3)
    with pytest.raises(UserError, match=r"tensor neck/w .* of run .* step 7"):
        initial_weights.from_pretrained(fresh, ConfigDict({"model": {"init_from": str(tmp_path)}}))


def test_init_from_a_folder_that_is_neither_run_nor_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="no converted weights"):
        initial_weights.from_pretrained({"params": {}}, ConfigDict({"model": {"init_from": str(tmp_path)}}))


def test_without_init_from_the_weights_stay_as_drawn():
    fresh = {"params": {"w": jnp.zeros(2)}}
    assert initial_weights.from_pretrained(fresh, ConfigDict({"model": {"init_from": ""}})) is fresh
