"""Fusions: shape, mask, padding, causality, chunks, gradients, missing modalities, and their equivalences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avemo.models import fusion
from benchmarks.parity import weights
from media.errors import UserError

B, T, D = 3, 12, 4
CUT = 6
LENGTHS = np.array([T, 7, T])
FEATURES = {"features": 8}
ENTRIES = {
    "audio": FEATURES,
    "visual": FEATURES,
    "concat": FEATURES,
    "late": {"weights": "learned"},
    "model_level": FEATURES,
    "model_level, dense": {**FEATURES, "encoder": "dense"},
    "gmu": FEATURES,
    "film": FEATURES,
    "tfn": {**FEATURES, "reduced": 3},
    "lmf": {**FEATURES, "reduced": 3, "rank": 2},
    "cross_attention": {**FEATURES, "num_heads": 2},
    "cross_attention, causal": {**FEATURES, "num_heads": 2, "causal": True},
    "joint_cross_attention": {**FEATURES, "window": 6, "hidden": 5, "iterations": 2},
    "leader_follower": FEATURES,
    "attention_pool": FEATURES,
    "bottleneck": {**FEATURES, "num_heads": 2, "num_layers": 2, "fusion_layer": 0, "num_tokens": 2},
}
WIDTH = {"late": D, "model_level": 16, "model_level, dense": 16}
GATED = {"late", "gmu", "leader_follower", "attention_pool"}
OVER_TIME = {"cross_attention", "joint_cross_attention", "bottleneck"}


def test_every_registered_fusion_is_tested():
    assert {entry.split(",")[0] for entry in ENTRIES} == set(fusion.FUSIONS)


def batch():
    """Both modalities, masks with gaps; row 2 has no sound at all."""
    rng = np.random.default_rng(0)
    audio, visual = rng.normal(size=(2, B, T, D)).astype(np.float32)
    real = np.arange(T)[None] < LENGTHS[:, None]
    audio_mask, visual_mask = real & (rng.random((2, B, T)) < 0.75)
    audio_mask[2] = False
    return audio, visual, audio_mask, visual_mask


class Case:
    def __init__(self, entry):
        name = entry.split(",")[0]
        self.model = fusion.build_fusion(name, ENTRIES[entry])
        self.params = weights.variables(self.model, *batch(), seed=1).get("params", {})
        if name == "late":
            self.params = jax.tree.map(jnp.zeros_like, self.params)

        def loss(params, *inputs):
            fused, extras = self.model.apply({"params": params}, *inputs)
            return (fused**3).sum(), (fused, extras)

        self.differentiate = jax.jit(jax.value_and_grad(loss, has_aux=True))
        self.short = jax.jit(functools.partial(self.model.apply, {"params": self.params}))

    def __call__(self, *inputs):
        (_, outputs), self.gradients = self.differentiate(self.params, *inputs)
        return outputs


@functools.cache
def case(entry):
    return Case(entry)


@pytest.mark.parametrize("entry", ENTRIES)
def test_contract(entry):
    run, (audio, visual, audio_mask, visual_mask) = case(entry), batch()
    fused, extras = run(audio, visual, audio_mask, visual_mask)
    assert fused.shape == (B, T, WIDTH.get(entry, 8))
    assert fused.dtype == jnp.float32
    assert np.isfinite(fused).all()
    assert ("gates" in extras) == (entry in GATED)
    if entry in GATED:
        assert extras["gates"].shape == (B, T, 2)
        either = audio_mask | visual_mask
        np.testing.assert_allclose(np.asarray(extras["gates"]).sum(-1)[either], 1, atol=1e-6)
    for path, gradient in jax.tree_util.tree_leaves_with_path(run.gradients):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 1e-7, jax.tree_util.keystr(path)

    # The content of a masked frame is not read, even NaN. (Late fusion reads predictions, which exist in every frame:
    # if both modalities are absent, it uses both.)
    absent = ~(audio_mask | visual_mask) if entry == "late" else np.zeros((B, T), bool)
    pairs = ((audio, audio_mask | absent), (visual, visual_mask | absent))
    spoilt = [np.where(read[..., None], x, np.nan) for x, read in pairs]
    again, _ = run(*spoilt, audio_mask, visual_mask)
    np.testing.assert_array_equal(fused, again)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(run.gradients))

    # Either modality missing, or both.
    for masks in ((audio_mask & False, visual_mask), (audio_mask, visual_mask & False), (audio_mask & False,) * 2):
        assert np.isfinite(run(audio, visual, *masks)[0]).all()

    # The future is read if, and only if, the strategy attends over time.
    later = audio.copy()
    later[:, CUT + 1 :] += 1
    past = np.abs(
        np.asarray(run(later, later, audio_mask, audio_mask)[0] - run(audio, later, audio_mask, audio_mask)[0])
    )
    if entry not in ("visual",):
        assert past[0, CUT + 1 :].max() > 0
    if run.model.streams or "causal" in entry:
        later_both = run(later, later, audio_mask, audio_mask)[0] - run(audio, audio, audio_mask, audio_mask)[0]
        assert np.abs(np.asarray(later_both))[0, : CUT + 1].max() == 0
    elif entry != "joint_cross_attention":  # it looks ahead within its window only
        assert past[0, : CUT + 1].max() > 0
    assert run.differentiate._cache_size() == 1


@pytest.mark.parametrize("entry", ENTRIES)
def test_padding_and_chunks_change_nothing(entry):
    run, inputs = case(entry), batch()
    short = tuple(x[:, :CUT] for x in inputs)
    cut = tuple(m & (np.arange(T) < CUT) for m in inputs[2:])
    expected, extras = run.short(*short)
    padded, _ = run(*inputs[:2], *cut)
    np.testing.assert_allclose(padded[:, :CUT], expected, atol=2e-6)
    if not run.model.streams:
        assert entry.split(",")[0] in OVER_TIME
        return
    whole, _ = run(*inputs)
    carry = {"carry": extras["carry"]} if "carry" in extras else {}
    rest, _ = run.short(*(x[:, CUT:] for x in inputs), **carry)
    np.testing.assert_allclose(np.concatenate([expected, rest], 1), whole, atol=2e-6)


def test_joint_cross_attention_streams_in_whole_windows():
    run, inputs = case("joint_cross_attention"), batch()
    whole, _ = run(*inputs)
    rest, _ = run.short(*(x[:, 6:] for x in inputs))
    np.testing.assert_allclose(rest, whole[:, 6:], rtol=1e-5, atol=1e-6)


def test_joint_cross_attention_with_zero_output_weights_is_concat():
    run, inputs = case("joint_cross_attention"), batch()
    params = {k: jax.tree.map(jnp.zeros_like, v) if k.endswith("_out") else v for k, v in run.params.items()}
    (_, (fused, _)), _ = run.differentiate(params, *inputs)
    concat, _ = case("concat").model.apply({"params": {"join": params["join"]}}, *inputs)
    np.testing.assert_allclose(fused, concat, atol=1e-6)
    assert np.abs(np.asarray(run(*inputs)[0] - concat)).max() > 0.1


def test_joint_cross_attention_is_its_formula():
    """One window with all frames present and one iteration, in float64 NumPy."""
    audio, visual, _, _ = batch()
    a, v = audio[0, :6].astype(np.float64), visual[0, :6].astype(np.float64)
    model = fusion.build_fusion("joint_cross_attention", {**ENTRIES["joint_cross_attention"], "iterations": 1})
    p = {k: np.asarray(x["kernel"], np.float64) for k, x in case("joint_cross_attention").params.items()}
    joint, attended = np.concatenate([a, v], 1), []
    for name, x in (("audio", a), ("visual", v)):
        correlation = np.tanh(x.T @ p[f"{name}_mix"] @ joint / np.sqrt(2 * D))
        hidden = np.maximum(x.T @ p[f"{name}_own"] + correlation @ p[f"{name}_joint"], 0)
        attended.append(x + (hidden @ p[f"{name}_out"]).T)
    bias = np.asarray(case("joint_cross_attention").params["join"]["bias"])
    expected = np.maximum(np.concatenate(attended, 1) @ p["join"] + bias, 0)
    there = np.ones((1, 6), bool)
    params = {"params": case("joint_cross_attention").params}
    fused, _ = model.apply(params, audio[:1, :6], visual[:1, :6], there, there)
    np.testing.assert_allclose(fused[0], expected, atol=1e-5)


def test_full_rank_lmf_is_tfn():
    inputs = batch()
    tfn = fusion.build_fusion("tfn", {**FEATURES, "reduced": 0})
    kernel = weights.variables(tfn, *inputs, seed=2)["params"]["join"]["kernel"]
    expected, _ = tfn.apply({"params": {"join": {"kernel": kernel}}}, *inputs)
    # Writes each output's matrix over ([1; a], [1; v]) as a sum of D + 1 outer products.
    u, s, vt = np.linalg.svd(kernel.reshape(D + 1, D + 1, 8).transpose(2, 0, 1))
    factors = {"audio_factors": (u * s[:, None]).transpose(2, 1, 0), "visual_factors": vt.transpose(1, 2, 0)}
    fused, _ = fusion.build_fusion("lmf", {**FEATURES, "reduced": 0, "rank": D + 1}).apply({"params": factors}, *inputs)
    np.testing.assert_allclose(fused, expected, atol=1e-5)


@pytest.mark.parametrize("fusion_layer", [1, 2])
def test_bottleneck_at_the_last_layer_is_late(fusion_layer):
    """Nothing is exchanged: neither half depends on the other modality."""
    audio, visual, audio_mask, visual_mask = batch()
    model = fusion.build_fusion("bottleneck", {**ENTRIES["bottleneck"], "fusion_layer": fusion_layer})
    params = weights.variables(model, audio, visual, audio_mask, visual_mask, seed=3)
    run = jax.jit(lambda a, v: model.apply(params, a, v, audio_mask, visual_mask)[0])
    crossed = run(audio, visual) + run(audio[::-1], visual[::-1]) - run(audio, visual[::-1]) - run(audio[::-1], visual)
    np.testing.assert_allclose(crossed, 0, atol=1e-5)


def test_bottleneck_exchanges_before_that():
    run, (audio, visual, _, _) = case("bottleneck"), batch()
    there = np.ones((B, T), bool)

    def fuse(a, v):
        return np.asarray(run(a, v, there, there)[0])

    flipped = audio[::-1].copy(), visual[::-1].copy()
    crossed = fuse(audio, visual) + fuse(*flipped) - fuse(audio, flipped[1]) - fuse(flipped[0], visual)
    assert np.abs(crossed).max() > 1e-3


def test_late_with_one_hot_weights_is_that_modality():
    audio, visual, _, _ = batch()
    there = np.ones((B, T), bool)
    for chosen, expected in (((1.0, 0.0), audio), ((0.0, 3.0), visual)):
        fused, _ = fusion.build_fusion("late", {"weights": list(chosen)}).apply({}, audio, visual, there, there)
        np.testing.assert_array_equal(fused, expected)
    fused, extras = fusion.build_fusion("late", {"weights": "mean"}).apply({}, audio, visual, there, ~there)
    np.testing.assert_array_equal(fused, audio)  # without a face the sound decides
    np.testing.assert_array_equal(extras["gates"][..., 0], 1)


def test_gmu_is_its_formula():
    audio, visual, _, _ = batch()
    there = np.ones((B, T), bool)
    p = case("gmu").params
    dense = {k: lambda x, k=k: x @ p[k]["kernel"] + np.asarray(p[k]["bias"])[None, None] for k in p}
    z = jax.nn.sigmoid(dense["gate"](np.concatenate([audio, visual], -1)))
    expected = z * np.tanh(dense["visual"](visual)) + (1 - z) * np.tanh(dense["audio"](audio))
    np.testing.assert_allclose(
        case("gmu").model.apply({"params": p}, audio, visual, there, there)[0], expected, atol=1e-5
    )


def test_film_with_zero_conditioning_leaves_the_modality_unchanged():
    audio, visual, _, _ = batch()
    there = np.ones((B, T), bool)
    model = fusion.build_fusion("film", {**FEATURES, "direction": "audio_to_visual"})
    p = weights.variables(model, audio, visual, there, there, seed=4)["params"]
    p = {k: jax.tree.map(np.zeros_like, v) if k.startswith(("gamma", "beta")) else v for k, v in p.items()}
    fused, _ = model.apply({"params": p}, audio, visual, there, there)
    bias = np.asarray(p["join"]["bias"])[None, None]
    np.testing.assert_allclose(
        fused, np.maximum(visual @ p["visual"]["kernel"] @ p["join"]["kernel"] + bias, 0), atol=1e-5
    )


def test_wrong_arguments_are_user_errors():
    with pytest.raises(UserError, match="did you mean 'gmu'"):
        fusion.build_fusion("gmo")
    with pytest.raises(UserError, match=r"'feature'.*did you mean 'features'"):
        fusion.build_fusion("gmu", {"feature": 3})
    for name, bad in (
        ("late", {"weights": "median"}),
        ("film", {"direction": "up"}),
        ("leader_follower", {"leader": "x"}),
    ):
        with pytest.raises(UserError, match="unknown"):
            fusion.build_fusion(name, bad).init(jax.random.key(0), *batch())
    with pytest.raises(UserError, match="num_heads=3"):
        fusion.build_fusion("bottleneck", {**FEATURES, "num_heads": 3}).init(jax.random.key(0), *batch())


NAMES = ("voice", "face", "words")
WIDTHS = (2, 4, 3)
OF_THREE = {
    **{name: arguments for name, arguments in ENTRIES.items() if name not in ("audio", "visual", "late")},
    "leader_follower": {**FEATURES, "leader": "words"},
}


@pytest.mark.parametrize("entry", OF_THREE)
def test_three_streams(entry):
    """Every parameter learns, a masked frame is not read, and each stream matters; any of them may be absent."""
    rng = np.random.default_rng(0)
    frames = [rng.normal(size=(B, T, width)).astype(np.float32) for width in WIDTHS]
    masks = list(rng.random((3, B, T)) < 0.75)
    masks[2][2] = False
    model = fusion.build_fusion(entry.split(",")[0], OF_THREE[entry], inputs=NAMES)
    params = weights.variables(model, *frames, *masks, seed=1)["params"]

    def loss(params, frames, masks):
        fused, extras = model.apply({"params": params}, *frames, *masks)
        return (fused**3).sum(), (fused, extras.get("gates", ()))

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, (fused, gates)), gradients = run(params, frames, masks)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.abs(gradient).max() > 1e-7, jax.tree_util.keystr(path)
    if entry in GATED:
        np.testing.assert_allclose(np.asarray(gates).sum(-1)[np.any(masks, 0)], 1, atol=1e-6)
    spoilt = [np.where(mask[..., None], x, np.nan) for x, mask in zip(frames, masks, strict=True)]
    np.testing.assert_array_equal(fused, run(params, spoilt, masks)[0][1][0])
    for absent in range(3):
        without = run(params, frames, [mask & (n != absent) for n, mask in enumerate(masks)])[0][1][0]
        assert np.isfinite(without).all()
        assert np.abs(np.asarray(without - fused)).max() > 1e-6


def test_late_shares_the_weight_of_an_absent_stream():
    rng = np.random.default_rng(0)
    frames, there = rng.normal(size=(3, B, T, D)).astype(np.float32), np.ones((B, T), bool)
    model = fusion.build_fusion("late", {"weights": [1.0, 3.0, 0.0]}, inputs=NAMES)
    fused, extras = model.apply({}, *frames, there, ~there, there)
    np.testing.assert_array_equal(fused, frames[0])
    np.testing.assert_array_equal(extras["gates"][0, 0], [1, 0, 0])
    fused, _ = model.apply({}, *frames, there, there, there)
    np.testing.assert_allclose(fused, frames[0] / 4 + frames[1] * 3 / 4, atol=1e-6)
    fused, _ = fusion.build_fusion("late", {"weights": "mean"}, inputs=NAMES).apply({}, *frames, there, there, ~there)
    np.testing.assert_allclose(fused, frames[:2].mean(0), atol=1e-6)
    with pytest.raises(UserError, match="must be 3 numbers"):
        fusion.build_fusion("late", {"weights": [1.0, 1.0]}, inputs=NAMES).apply({}, *frames, there, there, there)


def test_a_product_of_too_many_streams_and_wrong_names_are_user_errors():
    inputs = [np.ones((1, 1, 2), np.float32)] * 5 + [np.ones((1, 1), bool)] * 5
    names = tuple("abcde")
    with pytest.raises(UserError, match=r"1,419,857 entries per frame.*lmf"):
        fusion.build_fusion("tfn", inputs=names).init(jax.random.key(0), *inputs)
    for name, message in (("audio", "unknown stream"), ("leader_follower", "unknown leader 'visual'")):
        with pytest.raises(UserError, match=message):
            fusion.build_fusion(name, inputs=names).init(jax.random.key(0), *inputs)
    with pytest.raises(UserError, match="5 streams takes 5 features and 5 masks, not 4"):
        fusion.build_fusion("concat", inputs=names).init(jax.random.key(0), *inputs[:4])
