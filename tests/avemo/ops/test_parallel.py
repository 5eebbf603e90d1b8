"""How a step is mapped where there is a single device."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

# Five steps of a small regression whose gradient is averaged over the devices.
STEPS = """
import collections, json, sys
import jax, jax.numpy as jnp, numpy as np
from avemo.ops import device_axis, parallel
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
def predict(variables, batch, _):
    return {"y": batch["x"] @ variables["w"]}
def run(mode):
    traced = collections.Counter()
    def step(state, batch, constants):
        traced["step"] += 1
        x = batch["x"] - device_axis.pmean(batch["x"].mean(0))
        loss = lambda w: ((jnp.tanh(x @ w) - batch["y"]) ** 2).mean()
        value, gradient = jax.value_and_grad(loss)(state["w"])
        noise = jax.random.normal(jax.random.fold_in(parallel.replicate_key(1), state["step"]), gradient.shape)
        w = state["w"] - constants["rate"] * device_axis.pmean(gradient) + 1e-3 * noise
        return {"w": w, "step": state["step"] + 1}, {"loss": device_axis.pmean(value)}
    rng = np.random.default_rng(0)
    state = parallel.replicate({"w": rng.normal(size=(3, 2)).astype("f4"), "step": np.int32(0)})
    constants = parallel.replicate({"rate": np.float32(0.1)})
    mapped, losses = parallel.map_step(step, mode), []
    for _ in range(5):
        rows = {"x": rng.normal(size=(8, 3)).astype("f4"), "y": rng.normal(size=(8, 2)).astype("f4")}
        batch = parallel.shard_batch(rows, mode)
        state, values = mapped(state, batch, constants)
        losses.append(float(values["loss"]))
    times = traced["step"]
    asked = parallel.map_step(predict, mode, donate_state=False, gather_outputs=True)
    got = parallel.unshard(asked(state, batch, {}), mode)["y"]
    np.testing.assert_allclose(got, rows["x"] @ np.asarray(state["w"]), rtol=1e-5, atol=1e-6)
    program = str(jax.make_jaxpr(mapped)(state, batch, constants))
    return {"losses": losses, "w": np.asarray(state["w"]).tolist(), "traced": times,
            "mapped": "shard_map" in program or "pmap" in program, "reduced": "psum" in program}
print(json.dumps([run(mode) for mode in parallel.MODES]))
"""


def steps(devices):
    """What `STEPS` finds in each mode."""
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", STEPS, str(devices)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout)


@pytest.mark.portable
def test_a_single_device_pays_for_no_mapping_and_computes_the_same():
    alone, two = steps(1), steps(2)
    assert alone[0] == alone[1]
    assert (alone[0]["traced"], alone[0]["mapped"], alone[0]["reduced"]) == (1, False, False)
    for found in two:
        assert (found["mapped"], found["reduced"]) == (True, True)
        for name in ("losses", "w"):
            np.testing.assert_allclose(alone[0][name], found[name], rtol=1e-5, atol=1e-6)
