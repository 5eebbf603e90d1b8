"""Losses against worked examples, float64 formulas and golden files, over devices, and on degenerate input."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from avemo import losses
from media.errors import UserError

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "losses.npz"


def plain_ccc(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return 2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def f32(x):
    return jnp.asarray(x, jnp.float32)


# --- classification ---


def test_cross_entropy_weighs_classes_and_skips_the_unlabelled():
    logits = f32([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 5.0]])
    labels = jnp.array([0, 1, -1])
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    weights = np.array([1.0, 3.0, 1.0])
    expected = -(log_p[0, 0] + 3 * log_p[1, 1]) / 4
    assert losses.cross_entropy(logits, labels, class_weights=weights) == pytest.approx(expected, abs=1e-6)
    soft = jax.nn.one_hot(labels, 3)
    assert losses.cross_entropy(logits, soft, class_weights=weights) == pytest.approx(expected, abs=1e-6)
    smooth = -np.mean([0.9 * log_p[i, i] + 0.1 * log_p[i].mean() for i in range(2)])
    assert losses.cross_entropy(logits, labels, label_smoothing=0.1) == pytest.approx(smooth, abs=1e-6)


def test_vote_kl_is_zero_at_the_votes_and_has_the_gradient_of_cross_entropy():
    votes = f32([[6, 3, 1], [0, 10, 0], [0, 0, 0]])
    logits = jnp.log(votes + 1e-12)
    assert losses.vote_kl(logits, votes) == pytest.approx(0, abs=1e-6)
    other = f32(np.random.default_rng(0).normal(size=(3, 3)))
    shares = votes / jnp.maximum(votes.sum(-1, keepdims=True), 1)
    np.testing.assert_allclose(
        jax.grad(losses.vote_kl)(other, votes), jax.grad(losses.cross_entropy)(other, shares), atol=1e-6
    )
    assert losses.vote_kl(other, votes) > 0


# --- triplets ---


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_triplet_on_a_worked_example(odd):
    others = [i for i in range(3) if i != odd]
    embeddings = np.zeros((1, 3, 2))
    embeddings[0, others[0]], embeddings[0, others[1]], embeddings[0, odd] = [0, 0], [0.3, 0], [0.3, 0.4]
    # d_ij = 0.09, d_ik and d_jk are 0.25 and 0.16.
    flat = functools.partial(losses.triplet, f32(embeddings), jnp.array([odd]))
    assert flat(margin=0.2) == pytest.approx(0.04 + 0.13, abs=1e-6)
    kinds = {0: 0.0 + 0.03, 2: 0.04 + 0.13}
    for kind, expected in kinds.items():
        assert flat(jnp.array([kind]), margin=(0.1, 0.2, 0.2)) == pytest.approx(expected, abs=1e-6)


def test_triplet_masks_rows_and_normalises():
    rng = np.random.default_rng(1)
    embeddings, odd = rng.normal(size=(4, 3, 5)), jnp.array([0, 1, 2, 2])
    weights = jnp.array([True, True, False, True])
    whole = losses.triplet(f32(embeddings[[0, 1, 3]]), odd[jnp.array([0, 1, 3])], unit_norm=True)
    embeddings[2] = np.nan
    differentiate = jax.jit(jax.value_and_grad(functools.partial(losses.triplet, unit_norm=True)))
    value, gradient = differentiate(f32(embeddings), odd, None, weights)
    assert value == pytest.approx(float(whole), abs=1e-6)
    assert np.isfinite(gradient).all()
    scaled = losses.triplet(f32(3 * embeddings), odd, None, weights, unit_norm=True)
    assert scaled == pytest.approx(float(value), abs=1e-6)
    with pytest.raises(ValueError, match="types"):
        losses.triplet(f32(embeddings), odd, margin=(0.1, 0.2, 0.2))


# --- distillation ---


def test_distillation_equals_the_reference_formulas():
    """The authors' formulas in PyTorch, values and gradients; `benchmarks.parity.audio` writes the golden file."""
    golden = np.load(GOLDEN)
    student, teacher = f32(golden["student"]), f32(golden["teacher"])
    cases = {
        "rkd_distance": losses.rkd_distance,
        "rkd_angle": losses.rkd_angle,
        "dkd": functools.partial(
            losses.dkd, labels=jnp.asarray(golden["labels"]), alpha=1.0, beta=8.0, temperature=4.0
        ),
        "kd": functools.partial(losses.kd, temperature=4.0),
    }
    for name, loss in cases.items():
        value, gradient = jax.jit(jax.value_and_grad(lambda s, loss=loss: loss(s, teacher)))(student)
        np.testing.assert_allclose(value, golden[name], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(gradient, golden[f"{name}_gradient"], atol=1e-5, err_msg=name)


def test_dkd_with_the_teachers_own_weight_is_kd():
    rng = np.random.default_rng(2)
    student, teacher = f32(rng.normal(size=(1, 5))), f32(rng.normal(size=(1, 5)))
    label = jnp.array([3])
    p = jax.nn.softmax(teacher / 2)[0, 3]
    dkd = losses.dkd(student, teacher, label, alpha=1.0, beta=1 - p, temperature=2.0)
    assert dkd == pytest.approx(float(losses.kd(student, teacher, temperature=2.0)), abs=1e-6)


def test_unlabelled_dkd_takes_the_teachers_class():
    rng = np.random.default_rng(3)
    student, teacher = f32(rng.normal(size=(4, 5))), f32(rng.normal(size=(4, 5)))
    assert losses.dkd(student, teacher, jnp.full(4, -1)) == losses.dkd(student, teacher, teacher.argmax(-1))


def test_embedding_distances():
    a, b = f32([[3.0, 4.0]]), f32([[3.0, 0.0]])
    assert losses.embedding_distance(a, b) == pytest.approx(16)
    assert losses.embedding_distance(a, b, kind="cosine") == pytest.approx(0.4, abs=1e-6)
    with pytest.raises(UserError, match="cosine"):
        losses.embedding_distance(a, b, kind="cosin")


@pytest.mark.parametrize("loss", [losses.kd, losses.dkd, losses.rkd, losses.embedding_distance])
def test_distillation_ignores_masked_rows_and_is_zero_at_the_teacher(loss):
    rng = np.random.default_rng(4)
    student, teacher = rng.normal(size=(2, 5, 4))
    options = {"labels": None} if loss is losses.dkd else {}
    run = jax.jit(jax.value_and_grad(lambda s, t, weights: loss(s, t, weights=weights, **options)))
    every = jnp.ones(5, bool)
    weights = jnp.array([1, 1, 0, 1, 1], bool)
    keep = np.array([0, 1, 3, 4])
    fewer = loss(f32(student[keep]), f32(teacher[keep]), **options)
    same, at_teacher = run(f32(teacher), f32(teacher), every)
    assert same == pytest.approx(0, abs=1e-5)
    assert np.isfinite(at_teacher).all()
    student[2] = teacher[2] = np.nan
    value, gradient = run(f32(student), f32(teacher), weights)
    assert value == pytest.approx(float(fewer), rel=1e-5)
    assert np.isfinite(gradient).all()
    assert run(f32(student), f32(teacher), ~every)[0] == 0


# --- traces ---


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("per", ["recording", "batch"])
def test_ccc_loss_equals_float64(offset, per):
    rng = np.random.default_rng(5)
    y = (rng.normal(size=(4, 200, 2)) + offset).astype(np.float32)
    x = (0.6 * (y - offset) + 0.3 * rng.normal(size=y.shape) + offset + 0.2).astype(np.float32)
    mask = rng.random((4, 200)) < 0.7
    mask[3] = False
    if per == "recording":
        expected = np.mean(
            [1 - plain_ccc(x[b][mask[b]][:, k], y[b][mask[b]][:, k]) for b in range(3) for k in range(2)]
        )
    else:
        expected = np.mean([1 - plain_ccc(x[mask][:, k], y[mask][:, k]) for k in range(2)])
    assert losses.ccc_loss(f32(x), f32(y), jnp.asarray(mask), per=per) == pytest.approx(expected, abs=1e-5)


def test_ccc_gradient_equals_a_float64_difference_quotient():
    rng = np.random.default_rng(6)
    x, y, direction = rng.normal(size=(3, 1, 30, 2))
    step = 1e-6

    def loss(x):
        return np.mean([1 - plain_ccc(x[0, :, k], y[0, :, k]) for k in range(2)])

    quotient = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    _, gradient = _differentiate(f32(x), f32(y), None, "recording")
    assert np.vdot(gradient, direction) == pytest.approx(quotient, abs=1e-5)


@pytest.mark.parametrize("case", ["complete", "far start", "unlabelled", "masked"])
@pytest.mark.parametrize("frames", [300, 77])
def test_the_gradient_of_the_ccc_is_that_of_its_formula(case, frames):
    rng = np.random.default_rng(20)
    y = rng.normal(size=(3, frames, 2)) + 3
    x = 0.6 * y + 0.5 * rng.normal(size=y.shape)
    mask = np.ones(y.shape[:2], bool)
    if case == "far start":
        y[:, :10] += 1e4
    if case == "unlabelled":
        y[1, 5:30] = np.nan
    if case == "masked":
        mask[:, 40:] = False
    counts = mask[..., None] & np.isfinite(y)
    weight = rng.normal(size=(3, 2))

    def plain(x, y):  # one trace at a time, over the frames that count
        each = [[plain_ccc(x[b][c, k], y[b][c, k]) for k, c in enumerate(counts[b].T)] for b in range(3)]
        return np.sum(weight * each)

    @jax.jit
    def ours(x, y):
        return (f32(weight) * losses.ccc(x, y, None if mask.all() else jnp.asarray(mask))[0]).sum()

    value, gradients = jax.value_and_grad(ours, (0, 1))(f32(x), f32(y))
    assert value == pytest.approx(plain(x, y), abs=1e-5)
    direction = np.where(counts, rng.normal(size=(2, *y.shape)), 0)
    step = 1e-5
    for i, gradient in enumerate(gradients):
        move = [step * direction[i] * (i == j) for j in range(2)]
        quotient = (plain(x + move[0], y + move[1]) - plain(x - move[0], y - move[1])) / (2 * step)
        assert np.vdot(gradient, direction[i]) == pytest.approx(quotient, abs=2e-5)
        assert not np.asarray(gradient)[~counts].any()


def test_mse_is_added_with_its_weight():
    x, y = f32(np.random.default_rng(7).normal(size=(2, 2, 9, 2)))
    both = losses.ccc_loss(x, y, mse_weight=0.5)
    assert both - losses.ccc_loss(x, y) == pytest.approx(0.5 * np.mean(np.square(x - y)), abs=1e-5)


@functools.partial(jax.jit, static_argnums=3)
def _differentiate(x, y, mask, per):
    return jax.value_and_grad(losses.ccc_loss)(x, y, mask, per=per)


@pytest.mark.parametrize("per", ["recording", "batch"])
@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("constant prediction", 1.0),
        ("constant target", 1.0),
        ("both constant", 1.0),
        ("single frame", 1.0),
        ("masked", 0.0),
    ],
)
def test_degenerate_windows_have_a_documented_loss_and_a_finite_gradient(case, expected, per):
    x, y = np.random.default_rng(8).normal(size=(2, 2, 12, 2))
    mask = np.ones((2, 12), bool)
    if case in ("constant prediction", "both constant"):
        x[:] = 0.3
    if case in ("constant target", "both constant"):
        y[:] = 0.3
    if case == "single frame":
        mask = np.arange(24).reshape(2, 12) == 5
    if case == "masked":
        mask[:] = False
        y[:] = np.nan
    value, gradient = _differentiate(f32(x), f32(y), jnp.asarray(mask), per)
    assert value == pytest.approx(expected, abs=1e-5)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() < 10
    if case == "masked":
        assert not gradient.any()


def test_masked_frames_are_not_read_and_a_masked_recording_does_not_count():
    x, y = np.random.default_rng(9).normal(size=(2, 3, 10, 2))
    mask = np.arange(10)[None] < np.array([10, 6, 0])[:, None]
    fewer = losses.ccc_loss(f32(x[:2]), f32(y[:2]), jnp.asarray(mask[:2]))
    x[~mask] = np.nan
    y[~mask] = np.nan
    value, gradient = _differentiate(f32(x), f32(y), jnp.asarray(mask), "recording")
    assert value == pytest.approx(float(fewer), abs=1e-6)
    assert np.isfinite(gradient).all()
    assert losses.ccc_loss(jnp.where(mask[..., None], f32(x), 0), f32(y)) == pytest.approx(float(fewer), abs=1e-6)


def test_rater_loss_is_the_mean_over_raters():
    rng = np.random.default_rng(10)
    raters, heads = rng.normal(size=(2, 2, 20, 3, 2))
    each = np.mean([losses.ccc_loss(f32(heads[:, :, r]), f32(raters[:, :, r])) for r in range(3)])
    assert losses.rater_ccc_loss(f32(heads), f32(raters)) == pytest.approx(each, abs=1e-6)
    one = np.mean([losses.ccc_loss(f32(heads[:, :, 0]), f32(raters[:, :, r])) for r in range(3)])
    assert losses.rater_ccc_loss(f32(heads[:, :, 0]), f32(raters)) == pytest.approx(one, abs=1e-6)


def test_the_ccc_of_the_batch_is_not_the_mean_of_the_recordings():
    y = np.random.default_rng(11).normal(size=(4, 50, 2)) * 0.1 + np.arange(4)[:, None, None]
    x = y + 0.2 * np.random.default_rng(12).normal(size=y.shape)
    assert losses.ccc_loss(f32(x), f32(y), per="batch") < losses.ccc_loss(f32(x), f32(y)) - 0.1
    with pytest.raises(UserError, match="recording"):
        losses.ccc_loss(f32(x), f32(y), per="recordings")


def test_bfloat16_outputs_are_computed_in_float32():
    x, y = f32(np.random.default_rng(13).normal(size=(2, 2, 300, 2)))
    value = losses.ccc_loss(x.astype(jnp.bfloat16), y)
    assert value.dtype == jnp.float32
    assert value == pytest.approx(float(losses.ccc_loss(x, y)), abs=5e-3)


# --- devices ---

LOSSES = {
    "cross_entropy": lambda p, b: losses.cross_entropy(
        b["rows"] @ p, b["label"], class_weights=np.arange(1.0, 5.0), label_smoothing=0.1
    ),
    "vote_kl": lambda p, b: losses.vote_kl(b["rows"] @ p, jnp.abs(b["rows"]), b["weight"]),
    "triplet": lambda p, b: losses.triplet(
        b["frames"][:, :3] @ p, b["label"] % 3, b["label"] % 3, b["weight"], margin=(0.1, 0.2, 0.3)
    ),
    "kd": lambda p, b: losses.kd(b["rows"] @ p, b["rows"], b["weight"]),
    "dkd": lambda p, b: losses.dkd(b["rows"] @ p, b["rows"], b["label"], b["weight"]),
    "embedding": lambda p, b: losses.embedding_distance(b["rows"] @ p, b["rows"], b["weight"], kind="cosine"),
    "rkd": lambda p, b: losses.rkd(b["rows"] @ p, b["rows"], b["weight"]),
    "ccc_recording": lambda p, b: losses.ccc_loss(jnp.tanh(b["frames"] @ p), b["targets"], b["mask"], mse_weight=0.3),
    "ccc_batch": lambda p, b: losses.ccc_loss(jnp.tanh(b["frames"] @ p), b["targets"], b["mask"], per="batch"),
    "raters": lambda p, b: losses.rater_ccc_loss(
        jnp.tanh(b["frames"] @ p)[..., :2], b["targets"].reshape(-1, 6, 2, 2), b["mask"]
    ),
}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(14)
    mask = rng.random((16, 6)) < 0.7
    mask[:3] = False  # device 0 has no frames
    return {
        "rows": f32(rng.normal(size=(16, 4))),
        "frames": f32(rng.normal(size=(16, 6, 4))),
        "targets": f32(rng.normal(size=(16, 6, 4))),
        "label": jnp.asarray(rng.integers(0, 4, 16)),
        "weight": jnp.asarray(np.arange(16) < 11),  # a partial last batch: devices 6 and 7 hold only padding
        "mask": jnp.asarray(mask),
    }


@pytest.fixture(scope="module")
def alone(batch):
    """The parameters, and the value and gradient of every loss on one device."""

    @jax.jit
    def run(parameters, batch):
        return {name: jax.value_and_grad(loss)(parameters, batch) for name, loss in LOSSES.items()}

    parameters = f32(np.random.default_rng(15).normal(size=(4, 4)))
    return parameters, run(parameters, batch)


@pytest.mark.parametrize("mapping", ["pmap", "shard_map", "shard_map with vma"])
def test_differentiate_then_pmean_is_exactly_one_device(batch, alone, mapping):
    """Value and gradient of every loss on eight devices against one, in one compiled program per mapping."""
    parameters, one_device = alone

    def step(parameters, batch):
        out = {}
        for name, loss in LOSSES.items():
            value, gradient = jax.value_and_grad(loss)(parameters, batch)
            out[name] = value, jax.lax.pmean(gradient, "batch")
        return out

    if mapping == "pmap":
        cut = jax.tree.map(lambda x: x.reshape(8, 2, *x.shape[1:]), batch)
        spread = jax.pmap(step, axis_name="batch", in_axes=(None, 0), out_axes=None)(parameters, cut)
    else:
        mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
        specs = {"in_specs": (PartitionSpec(), PartitionSpec("batch")), "out_specs": PartitionSpec()}
        check = mapping == "shard_map with vma"
        spread = jax.jit(jax.shard_map(step, mesh=mesh, **specs, check_vma=check))(parameters, batch)
    for name, (value, gradient) in one_device.items():
        assert np.abs(gradient).max() > 1e-4, name
        np.testing.assert_allclose(spread[name][0], value, rtol=2e-6, err_msg=name)
        np.testing.assert_allclose(spread[name][1], gradient, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("per", ["recording", "batch"])
def test_dimensions_weigh_in_proportion(per):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 20, 2)).astype(np.float32)
    first, second = (float(losses.ccc_loss(x[..., k : k + 1], y[..., k : k + 1], per=per)) for k in (0, 1))
    weighted = losses.ccc_loss(x, y, per=per, dimensions=(3.0, 1.0))
    assert float(weighted) == pytest.approx((3 * first + second) / 4, abs=1e-5)
    for wrong in ((1.0,), (0.0, 0.0), (-1.0, 2.0)):
        with pytest.raises(UserError, match="must be 2 weights"):
            losses.ccc_loss(x, y, per=per, dimensions=wrong)
