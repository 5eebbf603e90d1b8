"""Temporal models: shape, mask, padding, causality, chunks, gradients; the recurrences against their definitions."""

import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avemo.models import temporal
from avemo.models.temporal import state_space
from avemo.ops import attention
from avemo.ops.gru import gru
from benchmarks.parity import audio as parity
from benchmarks.parity import weights
from media.errors import UserError

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "recurrent.npz"
B, T, D, H = 3, 12, 5, 8
CUT = 6
NUMBERS = {"features": H}
ENTRIES = {
    "gru": {**NUMBERS, "num_layers": 2},
    "bigru": NUMBERS,
    "lstm": NUMBERS,
    "mingru": NUMBERS,
    "tcn": {**NUMBERS, "num_blocks": 2},
    "tcn, centred": {**NUMBERS, "num_blocks": 1, "causal": False},
    "transformer": {**NUMBERS, "num_layers": 1, "num_heads": 2},
    "transformer, causal": {**NUMBERS, "num_layers": 1, "num_heads": 2, "causal": True, "window": 4},
    "s5": {**NUMBERS, "states": 4, "num_layers": 2},
    "s5, both ways": {**NUMBERS, "states": 4, "num_layers": 1, "bidirectional": True},
    "none": {},
}
CAUSAL = {"gru", "lstm", "mingru", "tcn", "transformer, causal", "s5", "none"}
STREAMING = {"gru", "lstm", "mingru", "tcn", "s5", "none"}


def test_every_registered_temporal_model_is_tested():
    assert {entry.split(",")[0] for entry in ENTRIES} == set(temporal.TEMPORALS)


def batch():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(B, T, D)).astype(np.float32)
    mask = np.arange(T)[None] < np.array([T, 7, 1])[:, None]
    return x, mask


class Case:
    """A built entry with drawn parameters, and its compiled programs."""

    def __init__(self, entry):
        name = entry.split(",")[0]
        self.model = temporal.build_temporal(name, ENTRIES[entry])
        x, mask = batch()
        self.params = weights.variables(self.model, x, mask, seed=1).get("params", {})

        def loss(params, x, mask):
            hidden, carry = self.model.apply({"params": params}, x, mask)
            return (jnp.where(mask[..., None], hidden, 0.0) ** 3).sum(), (hidden, carry)

        self.differentiate = jax.jit(jax.value_and_grad(loss, has_aux=True))
        self.chunk = jax.jit(lambda x, mask, carry: self.model.apply({"params": self.params}, x, mask, False, carry))

    def __call__(self, x, mask):
        (_, outputs), self.gradients = self.differentiate(self.params, x, mask)
        return outputs


@functools.cache
def case(entry):
    return Case(entry)


@pytest.mark.parametrize("entry", ENTRIES)
def test_contract(entry):
    run, (x, mask) = case(entry), batch()
    hidden, carry = run(x, mask)
    assert hidden.shape == (B, T, D if entry == "none" else H)
    assert hidden.dtype == jnp.float32
    assert (carry is not None) == (entry in STREAMING)
    # Every parameter learns.
    for path, gradient in jax.tree_util.tree_leaves_with_path(run.gradients):
        assert np.abs(gradient).max() > 1e-7, jax.tree_util.keystr(path)

    # The padding is not read, and does not reach the carry.
    spoilt = np.where(mask[..., None], x, 7.0).astype(np.float32)
    again, carry_again = run(spoilt, mask)
    np.testing.assert_array_equal(np.asarray(hidden)[mask], np.asarray(again)[mask])
    if entry in STREAMING:
        jax.tree.map(np.testing.assert_array_equal, carry, carry_again)

    # The future is read if, and only if, the model is not causal.
    later = x.copy()
    later[:, CUT:] += 1
    changed, _ = run(later, mask)
    past = np.abs(np.asarray(changed - hidden))[0, :CUT].max()
    assert (past == 0) == (entry in CAUSAL), past
    assert run.differentiate._cache_size() == 1


@pytest.mark.parametrize("entry", ENTRIES)
def test_padding_and_chunks_change_nothing(entry):
    run, (x, mask) = case(entry), batch()
    short_mask = mask & (np.arange(T) < CUT)
    padded, _ = run(x, short_mask)
    short, carry = run.chunk(x[:, :CUT], short_mask[:, :CUT], None)
    np.testing.assert_allclose(np.asarray(padded)[:, :CUT][short_mask[:, :CUT]], short[short_mask[:, :CUT]], atol=2e-6)
    if entry not in STREAMING:
        return
    whole, last = run(x, mask)
    rest, carry = run.chunk(x[:, CUT:], mask[:, CUT:], carry)
    joined = np.concatenate([short, rest], 1)
    np.testing.assert_allclose(joined[mask], np.asarray(whole)[mask], atol=2e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), carry, last)


@pytest.mark.parametrize("entry", sorted(STREAMING))
def test_step_by_step_is_the_whole(entry):
    run, (x, _) = case(entry), batch()
    whole, _ = run(x, np.ones((B, T), bool))
    step = jax.jit(lambda carry, x: run.model.apply({"params": run.params}, carry, x, method="step"))
    carry, frames = None, []
    for t in range(4):
        carry, frame = step(carry, x[:, t])
        frames.append(frame)
    np.testing.assert_allclose(np.stack(frames, 1), whole[:, :4], atol=2e-6)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_equals_pytorch(kind):
    """Goldens from torch.nn.GRU and LSTM: values and all gradients."""
    golden = np.load(GOLDEN)
    x, probe = parity.sequences()
    outputs, gradients = parity.run_cell(kind, parity.cell_params(kind, x, probe.shape[-1]), x, probe)
    for name, value in outputs.items():
        np.testing.assert_allclose(value, golden[f"{kind}/{name}"], atol=1e-5, err_msg=name)
    assert {k.split("gradient/")[1] for k in golden if k.startswith(f"{kind}/gradient")} == set(gradients)
    for name, value in gradients.items():
        np.testing.assert_allclose(value, golden[f"{kind}/gradient/{name}"], atol=1e-4, err_msg=name)


@pytest.mark.parametrize(("ours", "theirs"), [(temporal.GRU, nn.GRUCell), (temporal.LSTM, nn.OptimizedLSTMCell)])
@pytest.mark.parametrize("reverse", [False, True])
def test_takes_flax_parameters_and_gives_flax_numbers(ours, theirs, reverse):
    x, mask = batch()
    # In reverse, Flax flips each row by its length; the longest row alone needs no flipping.
    x, mask = x[:1], mask[:1]
    rnn = nn.RNN(theirs(H), reverse=reverse, keep_order=True)
    params = weights.variables(ours(H), x, mask, seed=2)["params"]
    expected = jax.jit(rnn.apply)({"params": {"cell": params}}, x)
    hidden, _ = jax.jit(ours(H, reverse=reverse).apply)({"params": params}, x, mask)
    np.testing.assert_allclose(hidden, expected, atol=1e-6)


def test_reverse_starts_at_the_last_real_frame():
    x, mask = batch()
    model = temporal.GRU(H, reverse=True)
    params = weights.variables(model, x, mask, seed=2)
    run = jax.jit(model.apply)
    hidden, _ = run(params, x, mask)
    flipped, _ = jax.jit(temporal.GRU(H).apply)(params, np.where(mask[:, ::-1, None], x[:, ::-1], 0), mask[:, ::-1])
    np.testing.assert_allclose(np.asarray(hidden)[mask], np.asarray(flipped)[:, ::-1][mask], atol=1e-6)


def test_mingru_scan_is_the_loop():
    x, mask = batch()
    model = temporal.MinGRU(H)
    params = weights.variables(model, x, mask, seed=3)
    start = np.abs(np.random.default_rng(1).normal(size=(B, H))).astype(np.float32)
    start[0, 0] = 0
    hidden, carry = jax.jit(lambda x, m, c: model.apply(params, x, m, False, c))(x, mask, start)
    p, h = params["params"], start.astype(np.float64)

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    for t in range(T):
        z = sigmoid(x[:, t] @ p["iz"]["kernel"] + p["iz"]["bias"])
        v = x[:, t] @ p["ih"]["kernel"] + p["ih"]["bias"]
        new = (1 - z) * h + z * np.where(v >= 0, v + 0.5, sigmoid(v))
        h = np.where(mask[:, t, None], new, h)
        np.testing.assert_allclose(hidden[:, t], h, rtol=1e-5)
    np.testing.assert_allclose(carry, h, rtol=1e-5)


def test_initialisation_is_flaxs_and_bfloat16_keeps_float32_parameters_and_carry():
    model = temporal.build_temporal("gru", NUMBERS, dtype=jnp.bfloat16)
    x, mask = batch()
    params = jax.jit(model.init)(jax.random.key(0), x, mask)
    kernel = params["params"]["forward_0"]["hr"]["kernel"]
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(H), atol=1e-5)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    hidden, (carry,) = jax.jit(model.apply)(params, x, mask)
    full, _ = jax.jit(temporal.build_temporal("gru", NUMBERS).apply)(params, x, mask)
    assert hidden.dtype == carry.dtype == jnp.float32
    np.testing.assert_allclose(hidden, full, atol=0.03)


def test_attention_in_blocks_of_queries_is_attention_whole(monkeypatch):
    q, k, v = np.random.default_rng(2).normal(size=(3, 1, 10, 2, 4)).astype(np.float32)
    mask = np.arange(10)[None] < 8
    run = functools.partial(attention.attend, q, k, v, jnp.asarray(mask), True, 5)
    whole = run()
    monkeypatch.setattr(attention, "QUERIES_AT_ONCE", 4)
    np.testing.assert_allclose(run(), whole, atol=1e-6)


def test_wrong_use_is_a_user_error():
    with pytest.raises(UserError, match="did you mean 'gru'"):
        temporal.build_temporal("grou")
    with pytest.raises(UserError, match="num_layers"):
        temporal.build_temporal("gru", {"layers": 2})
    x, mask = batch()
    with pytest.raises(UserError, match="carry"):
        case("bigru").model.apply({"params": case("bigru").params}, x, mask, False, ())


@pytest.mark.parametrize("reverse", [False, True])
def test_the_gradient_of_the_gru_is_that_of_its_plain_scan(reverse):
    rng = np.random.default_rng(5)
    shapes = {"inputs": (T, B, 3 * H), "kernel": (H, 3 * H), "bias": (3 * H,), "start": (B, H)}
    values = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    above, above_last = (rng.normal(size=shape).astype(np.float32) for shape in ((T, B, H), (B, H)))
    valid = batch()[1].T[:, :, None]

    def loss(values, function):
        order = values["inputs"], valid, values["kernel"], values["bias"], values["start"], reverse
        hidden, last = function(*order)
        return (above * hidden).sum() + (above_last * last).sum()

    got, expected = (
        jax.jit(jax.value_and_grad(functools.partial(loss, function=f)))(values) for f in (gru, gru.__wrapped__)
    )
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-6)
    for name, gradient in expected[1].items():
        np.testing.assert_allclose(got[1][name], gradient, atol=1e-5, rtol=1e-5, err_msg=name)


def test_the_state_space_is_its_recurrence():
    """The scan, from a given state and past a gap at the end, against complex numbers frame by frame in float64."""
    rng, (_, mask) = np.random.default_rng(0), batch()
    x = rng.normal(size=(B, T, 3)).astype(np.float32)
    start = rng.normal(size=(2, B, 4)).astype(np.float32)
    model = state_space.Diagonal(3, 4)
    params = jax.jit(model.init)(jax.random.key(0), x, mask, tuple(start))["params"]
    y, last = jax.jit(model.apply)({"params": params}, x, mask, tuple(start))
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    rate = -np.exp(p["log_rate"]) + 1j * p["frequency"]
    decay = np.exp(rate * np.exp(p["log_step"]))
    into, out = p["b_real"] + 1j * p["b_imaginary"], p["c_real"] + 1j * p["c_imaginary"]
    state = start[0] + 1j * start[1]
    for t in range(T):
        new = decay * state + (decay - 1) / rate * (x[:, t] @ into)
        state = np.where(mask[:, t, None], new, state)
        expected = 2 * (state @ out.T).real + p["skip"] * x[:, t]
        np.testing.assert_allclose(np.asarray(y)[mask[:, t], t], expected[mask[:, t]], atol=1e-5)
    np.testing.assert_allclose(np.asarray(last[0]) + 1j * np.asarray(last[1]), state, atol=1e-5)
    # Fast states forget within frames, slow ones remember for hundreds.
    assert np.exp(p["log_step"]).min() >= 1e-3
    np.testing.assert_allclose(p["frequency"], np.pi * np.arange(4), atol=1e-6)
