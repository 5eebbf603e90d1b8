"""`model.init_from` names nothing, a run, or converted weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from avemo.ops import hardware
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


def test_weights_are_drawn_on_the_cpu_whatever_the_accelerator(monkeypatch):
    def init(key):
        return {"params": {"w": jax.random.normal(key, (3, 5))}}

    here = initial_weights.initialise(init, jax.random.key(3))
    compiled_for = []
    jit = jax.jit
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "jit", lambda f, **k: compiled_for.append(jax.config.jax_default_device) or jit(f, **k))
    there = initial_weights.initialise(init, jax.random.key(3))
    assert compiled_for == [jax.local_devices(backend="cpu")[0]]
    np.testing.assert_array_equal(here["params"]["w"], there["params"]["w"])


def test_without_a_cpu_backend_weights_are_drawn_on_the_accelerator(monkeypatch):
    def no_cpu(backend=None):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", no_cpu)
    with hardware.on_cpu() as cpu:
        assert not cpu
        assert jax.config.jax_default_device is None
