"""Every parameter of every network, fusion and temporal model learns: the registries name the cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avemo.models import audio_encoders, audiovisual, fusion, temporal
from avemo.models.expression import TRUNKS
from benchmarks.parity import weights
from helpers.networks import small

# Arguments that make a model small; models not listed are small by default.
AUDIO = {"vggish": {"width": 0.0625, "fc_dim": 16, "embedding_dim": 8}, "yamnet": {"width": 0.25, "layers": 3}}
FUSION = {"lmf": {"rank": 2}, "tfn": {}}
CASES = [
    *(("trunk", name) for name in TRUNKS),
    *(("audio", name) for name in audio_encoders.AUDIO_ENCODERS),
    *(("fusion", name) for name in fusion.FUSIONS),
    *(("temporal", name) for name in temporal.TEMPORALS),
]


def drawn(model, *inputs):
    """Parameters drawn at random, so that no zero initialisation hides a dead branch."""
    variables = jax.eval_shape(lambda *x: model.init(jax.random.key(0), *x), *inputs)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), x.dtype), variables)


def problem(kind, name):
    """Returns `(variables, run)` of a small model, where `run(variables)` gives the outputs that a loss reads."""
    if kind == "trunk":
        net, variables, images = small(name)
        # In inference mode, because in training BatchNorm subtracts the bias before it, which rightly gets no gradient.
        return variables, lambda v: [net.apply(v, images, False)[key] for key in ("embedding", "logits")]
    rng = np.random.default_rng(1)
    if kind == "audio":
        net = audio_encoders.build({"name": name, **AUDIO[name]})
        windows = jnp.asarray(rng.normal(0, 1, (2, 96, 64)), jnp.float32)
        return weights.variables(net, windows, seed=0), lambda v: [net.apply(v, windows, False)]
    config = {"fusion": "concat", kind: name, f"{kind}_args": FUSION.get(name, {}), "dropout": 0.0}
    net = audiovisual.build(config)
    features = [jnp.asarray(rng.normal(0, 1, (2, 12, 6)), jnp.float32) for _ in range(2)]
    masks = [jnp.asarray(m) for m in (rng.random((2, 12)) < 0.8, rng.random((2, 12)) < 0.8, np.ones((2, 12), bool))]
    return drawn(net, *features, *masks), lambda v: [net.apply(v, *features, *masks)["traces"]]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_parameter_gets_a_gradient(kind, name):
    variables, run = problem(kind, name)
    rest = {key: value for key, value in variables.items() if key != "params"}
    above = [np.random.default_rng(2).standard_normal(y.shape) for y in jax.eval_shape(run, variables)]

    def loss(params):
        outputs = run({**rest, "params": params})
        return sum(jnp.sum(y * jnp.asarray(w, jnp.float32)) for y, w in zip(outputs, above, strict=True))

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    dead = [jax.tree_util.keystr(path) for path, g in jax.tree_util.tree_leaves_with_path(gradients) if not np.any(g)]
    # A modality that a fusion ignores has no parameters, so every parameter must learn.
    assert dead == []
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
