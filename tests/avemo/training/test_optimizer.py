import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avemo import configuration
from avemo.training import optimizer, seeds_together, train
from media.errors import UserError

PARAMS = {
    "trunk": {"conv": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}},
    "head": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
}


def config(*overrides):
    return configuration.load("configs/paper/teacher.py", [f"--config.optimizer.{o}" for o in overrides])


def updates(*overrides):
    tx = optimizer.make(config(*overrides), 10, PARAMS)
    with jax.numpy_dtype_promotion("standard"):
        change, _ = tx.update(jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS), PARAMS)
    return change


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_a_pattern_freezes_what_it_matches_and_nothing_else(name):
    change = updates(f"name={name}", f"weight_decay={0 if name == 'adam' else 0.1}", "freeze=('trunk/.*kernel',)")
    assert not np.any(change["trunk"]["conv"]["kernel"])
    assert np.all(change["trunk"]["conv"]["bias"])
    assert np.all(change["head"]["kernel"])


def test_weight_decay_spares_biases():
    change, plain = updates("weight_decay=0.5"), updates()
    np.testing.assert_array_equal(change["head"]["bias"], plain["head"]["bias"])
    assert np.abs(change["head"]["kernel"]).min() > np.abs(plain["head"]["kernel"]).max()


def test_adam_refuses_a_weight_decay_that_it_would_ignore():
    with pytest.raises(UserError, match=r"weight_decay=0\.1 .* use adamw"):
        updates("name=adam", "weight_decay=0.1")
    assert np.all(updates("name=adamw", "weight_decay=0.1")["head"]["kernel"])


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_refuses_a_momentum_that_it_would_ignore(name):
    with pytest.raises(UserError, match=rf"momentum=0\.5 has no effect with optimizer\.name={name}: use sgd"):
        updates(f"name={name}", "momentum=0.5")
    assert np.any(updates("momentum=0.5")["head"]["kernel"] != updates("momentum=0.9")["head"]["kernel"])


def test_a_bad_optimizer_is_named_before_data_and_run_folder_are_touched(tmp_path):
    bad = config("name=adam", "momentum=0.5")
    bad.data.faces = str(tmp_path / "missing")
    with pytest.raises(UserError, match=r"optimizer\.momentum"):
        train.train_and_evaluate(bad, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"optimizer\.momentum"):
        seeds_together.train_seeds([bad], [tmp_path / "run"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("freeze=('trnk',)", "'trnk' matches no parameter"),
        ("freeze=('(',)", "not a regular expression"),
        ("name=adm", "did you mean 'adam'"),
        ("schedule=cosin", "did you mean 'cosine'"),
    ],
)
def test_bad_settings_are_named(override, says):
    with pytest.raises(UserError, match=says):
        optimizer.make(config(override), 10, PARAMS)


@pytest.mark.parametrize("name", optimizer.SCHEDULES)
def test_schedules_warm_up_and_end_where_they_should(name):
    rate = optimizer.schedule(config(f"schedule={name}", "warmup=0.1", "learning_rate=1.0").optimizer, 100)
    assert rate(0) == 0
    assert rate(10) == pytest.approx(1.0)
    assert float(rate(99)) == pytest.approx({"constant": 1.0, "cosine": 0.0, "step": 0.01}[name], abs=2e-3)
