"""The audiovisual model: outputs, carry, decision level, missing modalities, modality dropout, config errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from avemo.models import audiovisual
from benchmarks.parity import weights
from media.errors import UserError

B, T, DA, DV = 4, 10, 3, 5
CUT = 5
SMALL = {"fusion_args": {"features": 6}, "temporal_args": {"features": 6}}


def batch():
    rng = np.random.default_rng(0)
    audio, visual = (rng.normal(size=(B, T, d)).astype(np.float32) for d in (DA, DV))
    mask = np.arange(T)[None] < np.array([T, 6, T, T])[:, None]
    seen = rng.random((2, B, T)) < 0.8
    seen[0, 2] = seen[1, 3] = False  # row 2 has no sound, row 3 no face
    return audio, visual, seen[0] & mask, seen[1] & mask, mask


def made(config, seed=1):
    model = audiovisual.build(ConfigDict({**SMALL, **config}))
    return model, weights.variables(model, *batch(), seed=seed)


def test_outputs_of_the_default():
    model, params = made({"num_classes": 3, "num_raters": 2, "traces": True})
    out = jax.jit(model.apply)(params, *batch())
    assert out["traces"].shape == (B, T, 2)
    assert out["logits"].shape == (B, T, 3)
    assert out["rater_traces"].shape == (B, T, 2, 2)
    assert out["hidden"].shape == (B, T, 6)
    assert out["fused"].shape == (B, T, 12)
    np.testing.assert_allclose(out["traces"], out["rater_traces"].mean(-2), atol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))


@pytest.mark.parametrize(
    "config",
    [
        {"fusion": "model_level"},
        {"fusion": "late", "temporal": "mingru"},
        {"fusion": "gmu", "temporal": "tcn", "missing": "token"},
    ],
    ids=["model_level", "late", "token"],
)
def test_chunks_are_the_whole_and_every_parameter_learns(config):
    if config.get("temporal") == "tcn":
        config = {**config, "temporal_args": {"features": 6, "num_blocks": 1}}
    model, params = made(config)
    inputs = batch()
    mask = inputs[-1]

    def loss(params, *inputs):
        out = model.apply(params, *inputs)
        return jnp.where(inputs[-1][..., None], out["traces"], 0.0).sum() ** 2, out

    gradients, whole = jax.jit(jax.grad(loss, has_aux=True))(params, *inputs)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.abs(gradient).max() > 1e-7, jax.tree_util.keystr(path)
    spoilt = [np.where(m[..., None], x, np.nan) for x, m in zip(inputs[:2], inputs[2:4], strict=True)]
    chunk = jax.jit(lambda carry, *inputs: model.apply(params, *inputs, carry=carry))
    first = chunk(None, *(x[:, :CUT] for x in (*spoilt, *inputs[2:])))
    second = chunk(first["carry"], *(x[:, CUT:] for x in (*spoilt, *inputs[2:])))
    joined = np.concatenate([first["traces"], second["traces"]], 1)
    np.testing.assert_allclose(joined[mask], np.asarray(whole["traces"])[mask], atol=2e-6)


def test_a_model_of_the_whole_sequence_has_no_carry():
    model, params = made({"fusion": "concat", "temporal": "bigru"})
    assert jax.jit(model.apply)(params, *batch())["carry"] is None
    model, params = made({"fusion": "bottleneck", "fusion_args": {"features": 8, "num_layers": 1}, "temporal": "none",
                          "temporal_args": {}})  # fmt: skip
    assert jax.jit(model.apply)(params, *batch())["carry"] is None
    with pytest.raises(UserError, match="whole sequence"):
        model.apply(params, *batch(), carry={"fusion": (), "temporal": ()})


def test_late_with_one_hot_weights_is_that_modality_alone():
    audio, visual, _, _, mask = batch()
    config = {"fusion": "late", "num_classes": 3, "traces": True, "fusion_args": {"features": 6, "weights": (0.0, 1.0)}}
    model, params = made(config)
    run = jax.jit(model.apply)
    out = run(params, audio, visual, mask, mask, mask)
    other = run(params, audio + 1, visual, mask, mask, mask)
    for key in ("traces", "logits"):
        np.testing.assert_array_equal(out[key], other[key])
    np.testing.assert_array_equal(np.asarray(out["gates"])[mask], np.tile([0.0, 1.0], (mask.sum(), 1)))
    assert np.abs(out["traces"] - run(params, audio, visual + 1, mask, mask, mask)["traces"]).max() > 1e-3


def test_the_learned_token_stands_in_and_zero_does_not():
    inputs = batch()
    model, params = made({"fusion": "concat", "missing": "token"})
    run = jax.jit(lambda params: model.apply(params, *inputs)["traces"])
    moved = {"params": {**params["params"], "audio_token": params["params"]["audio_token"] + 1}}
    change = np.abs(np.asarray(run(params) - run(moved))).max((1, 2))
    assert (change[[0, 2]] > 0).all()
    assert "audio_token" not in made({"fusion": "concat"})[1]["params"]


def test_modality_dropout_drops_one_modality_never_both():
    model = audiovisual.build({**SMALL, "modality_dropout": 0.6})
    rows = 4000
    audio, visual = np.ones((2, rows, 3), bool)
    audio[:100] = False  # these have a face only
    drop = jax.jit(
        lambda key, train: model.apply({}, audio, visual, train, method="_drop_modality", rngs={"dropout": key}),
        static_argnums=1,
    )
    a, v = (np.asarray(x) for x in drop(jax.random.key(0), True))
    assert (a.any(1) | v.any(1)).all()
    np.testing.assert_array_equal(v[:100], True)
    assert (a[100:].any(1) == a[100:].all(1)).all()
    for share in ((~a[100:, 0]).mean(), (~v[100:, 0]).mean()):
        assert share == pytest.approx(0.3, abs=0.03)
    a, v = drop(jax.random.key(0), False)
    np.testing.assert_array_equal(a, audio)


def test_dropout_acts_in_training_only():
    model, params = made({"fusion": "concat", "temporal": "none", "temporal_args": {}, "dropout": 0.5})
    run = jax.jit(
        lambda key, train: model.apply(params, *batch(), train=train, rngs={"dropout": key})["traces"], static_argnums=1
    )
    one, two = jax.random.split(jax.random.key(0))
    assert not np.array_equal(run(one, True), run(two, True))
    np.testing.assert_array_equal(run(one, False), run(two, False))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"fusion": "gated"}, "Known: .*gmu"),
        ({"temporal": "rnn"}, "Known: .*gru"),
        ({"fusoin": "gmu"}, "did you mean 'fusion'"),
        ({"fusion_args": {"width": 3}}, "argument of fusion 'model_level' 'width'"),
        ({"temporal_args": {"feature": 3}}, "did you mean 'features'"),
        ({"missing": "mean"}, "token"),
    ],
)
def test_a_wrong_config_is_refused_before_any_data_is_read(config, message):
    with pytest.raises(UserError, match=message):
        audiovisual.build(config)


THREE = ("voice", "face", "words")


def three():
    rng = np.random.default_rng(0)
    frames = [rng.normal(size=(B, T, d)).astype(np.float32) for d in (3, 5, 2)]
    mask = np.arange(T)[None] < np.array([T, 6, T, T])[:, None]
    seen = list((rng.random((3, B, T)) < 0.8) & mask)
    seen[1][3] = False
    return *frames, *seen, mask


@pytest.mark.parametrize("config", [{"fusion": "late", "num_raters": 2}, {"fusion": "gmu", "head_features": 4}])
def test_three_streams_run_in_chunks(config):
    model = audiovisual.build(ConfigDict({**SMALL, "streams": THREE, "missing": "token", **config}))
    params, inputs = weights.variables(model, *three(), seed=1), three()
    run = jax.jit(lambda carry, *inputs: model.apply(params, *inputs, carry=carry))
    whole = jax.jit(model.apply)(params, *inputs)
    assert whole["gates"].shape == (B, T, 3)
    first = run(None, *(x[:, :CUT] for x in inputs))
    second = run(first["carry"], *(x[:, CUT:] for x in inputs))
    joined = np.concatenate([first["traces"], second["traces"]], 1)
    np.testing.assert_allclose(joined[inputs[-1]], np.asarray(whole["traces"])[inputs[-1]], atol=2e-6)
    assert "words_token" in params["params"]


def test_dropout_of_streams_never_drops_all():
    rows = 3000
    model = audiovisual.build({**SMALL, "streams": ("a", "b", "c", "d"), "modality_dropout": 0.6})
    masks = np.ones((4, rows, 2), bool)
    masks[:3, :100] = False
    drop = jax.jit(lambda key: model.apply({}, *masks, True, method="_drop_modality", rngs={"dropout": key}))
    left = np.stack([np.asarray(m).all(1) for m in drop(jax.random.key(0))], -1)
    assert left.any(-1).all()
    assert left[:100, 3].all()
    lost = (~left[100:]).sum(-1)
    np.testing.assert_allclose(np.bincount(lost) / len(lost), [0.4, 0.2, 0.2, 0.2], atol=0.03)
    np.testing.assert_allclose((~left[100:]).mean(0), 0.3, atol=0.03)


def test_streams_are_different_names():
    with pytest.raises(UserError, match="different names"):
        audiovisual.build({**SMALL, "streams": ("a", "a")})
