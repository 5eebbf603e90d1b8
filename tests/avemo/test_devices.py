"""Every task gives one device's numbers on eight, and on two processes of four: loss, metrics and gradients, with
masked rows in the batch and dropout on."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from avemo import abstract, accumulation, configuration, parallel
from avemo import input as data_input

TINY_FACES = [
    *("--config.model.width=0.0625", "--config.model.repeats_35=1", "--config.model.repeats_17=1"),
    *("--config.model.neck_channels=8", "--config.model.dense_layers=1", "--config.model.dense_growth=4"),
]
TINY = {
    "teacher": TINY_FACES,
    "student": [*TINY_FACES, "--config.loss.distillation.rkd_weight=1.0"],
    "audio": ["--config.model.width=0.0625", "--config.model.fc_dim=16", "--config.model.embedding_dim=8"],
    "fusion": [
        *("--config.model.fusion_args.features=8", "--config.model.temporal_args.features=8"),
        *("--config.data.sequence_length=12", "--config.model.dropout=0.5"),
    ],
}


def problem(name, overrides=()):
    """A tiny task with random weights and a random global batch in which a row of each part is masked."""
    config = configuration.load(f"configs/demo/{name}.py:smoke", [*TINY[name], *overrides])
    sizes = abstract.batch_sizes(config)
    task = abstract.task(config, sizes)
    rng = np.random.default_rng(0)

    def weight(path, x):
        positive = any(word in jax.tree_util.keystr(path) for word in ("var", "std", "scale"))
        return (0.5 + rng.random(x.shape) if positive else rng.normal(0, 0.3, x.shape)).astype(x.dtype)

    def value(path, x):
        field = path[-1].key
        if field in ("label", "type"):
            x = rng.integers(0, 8 if field == "label" else 3, x.shape).astype(x.dtype)
            if field == "label":
                x[1] = -1
            return x
        if x.dtype == np.uint8:
            return rng.integers(0, 256, x.shape).astype(x.dtype)
        if x.dtype == bool:
            x = rng.random(x.shape) < 0.8
            x[2] = False
            return x
        return rng.normal(0, 1, x.shape).astype(x.dtype)

    variables = jax.tree_util.tree_map_with_path(weight, task.init(None))
    constants = jax.tree_util.tree_map_with_path(weight, task.constants)
    batch = jax.tree_util.tree_map_with_path(value, abstract.batch(config, sizes))
    return task, variables, batch, constants


def step_of(task):
    def step(variables, batch, constants):
        state = {k: v for k, v in variables.items() if k != "params"}
        (loss, (state, values)), gradients = jax.value_and_grad(task.loss, has_aux=True)(
            variables["params"], state, constants, batch, jax.random.key(7)
        )
        return {"loss": loss, **values}, jax.lax.pmean(gradients, parallel.AXIS), state

    return step


def assert_same(one, many, tolerance):
    # The bias of a convolution before batch norm has no gradient but rounding: small beside the largest is equal.
    floor = 1e-2 * tolerance * max(np.abs(leaf).max() for leaf in jax.tree.leaves(one))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(many), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert np.isfinite(a).all(), jax.tree_util.keystr(path)
        np.testing.assert_allclose(
            b, a, rtol=tolerance, atol=max(floor, tolerance * np.abs(a).max()), err_msg=jax.tree_util.keystr(path)
        )


@pytest.mark.parametrize("name", TINY)
def test_eight_devices_give_the_numbers_of_one(name):
    task, variables, batch, constants = problem(name)
    mesh = Mesh(np.asarray(jax.devices()[:1]), (parallel.AXIS,), axis_types=(AxisType.Auto,))
    run = parallel.map_step(step_of(task), "shard_map", donate_state=False, mesh=mesh)
    one = jax.device_get(run(variables, jax.tree.map(jnp.asarray, batch), constants))
    run = parallel.map_step(step_of(task), donate_state=False)
    eight = jax.device_get(run(variables, parallel.shard_batch(batch), constants))
    assert any(np.abs(g).max() > 0 for g in jax.tree.leaves(one[1]))
    # float32 sums in another order; batch norm's variance loses a digit or two of what the convolutions leave.
    assert_same(one, eight, 1e-5 if name in ("audio", "fusion") else 1e-3)


def accumulated(name, pieces, devices, rows=lambda x: x, overrides=()):
    """Loss, values, gradients and state of a step over `rows(batch)`, in micro-batches."""
    task, variables, batch, constants = problem(name, overrides)
    batch = data_input.pad_batch(jax.tree.map(rows, batch), devices * pieces)

    def step(variables, batch, constants):
        state = {k: v for k, v in variables.items() if k != "params"}
        (loss, (state, values)), gradients = accumulation.value_and_grad(task, pieces)(
            variables["params"], state, constants, batch, jax.random.key(7)
        )
        return {"loss": loss, **values}, jax.lax.pmean(gradients, parallel.AXIS), state

    mesh = Mesh(np.asarray(jax.devices()[:devices]), (parallel.AXIS,), axis_types=(AxisType.Auto,))
    run = parallel.map_step(step, "shard_map", donate_state=False, mesh=mesh)
    return jax.device_get(run(variables, jax.tree.map(jnp.asarray, batch), constants))


@pytest.mark.parametrize(("name", "devices"), [("audio", 1), ("audio", 2), ("fusion", 1), ("fusion", 2)])
def test_accumulated_gradients_are_those_of_the_whole_batch(name, devices):
    # One CCC over all rows, which no mean of micro-batches' CCCs gives. Dropout is on in fusion.
    per_batch = {"overrides": ["--config.loss.per=batch"]}
    assert_same(accumulated(name, 1, 1, **per_batch), accumulated(name, 4, devices, **per_batch), 1e-5)


def test_micro_batches_with_equal_statistics_give_the_batch_s_numbers():
    # Rows 0 and 1 four times over: every micro-batch has the batch's statistics, the only thing that may differ.
    again = lambda x: np.concatenate([x[:2]] * 4)  # noqa: E731
    assert_same(accumulated("teacher", 1, 1, again), accumulated("teacher", 4, 1, again), 1e-4)


@pytest.mark.parametrize(("name", "pieces"), [("teacher", 1), ("student", 1), ("audio", 2), ("fusion", 2)])
def test_a_batch_of_any_size_gives_its_own_numbers_on_any_number_of_devices(name, pieces):
    one, many = (accumulated(name, *split, rows=lambda x: x[:5]) for split in ((1, 1), (pieces, 4)))
    # Batch statistics leave out the padding too; float32 loses a digit or two behind them.
    assert_same(one, many, 1e-5 if name in ("audio", "fusion") else 1e-3)


_CHILD = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
import numpy as np
import test_devices
from avemo import parallel
task, variables, batch, constants = test_devices.problem("fusion")
half = jax.tree.map(lambda x: np.split(x, 2)[int(sys.argv[2])], batch)
run = parallel.map_step(test_devices.step_of(task), donate_state=False)
values, gradients, _ = run(variables, parallel.shard_batch(half), constants)
assert jax.device_count() == 8 and jax.local_device_count() == 4
local = lambda x: np.asarray(x.addressable_data(0))
np.savez(sys.argv[3], local(values["loss"]), *map(local, jax.tree.leaves(gradients)))
"""


@pytest.mark.slow
def test_two_processes_of_four_devices_give_the_numbers_of_eight_devices(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    tests = pathlib.Path(__file__).resolve().parents[1]
    paths = [str(tests.parent), str(tests), str(tests / "avemo")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _CHILD, address, str(n), str(tmp_path / f"{n}.npz")],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    for child in children:
        _, errors = child.communicate(timeout=500)
        assert child.returncode == 0, errors[-2000:]
    task, variables, batch, constants = problem("fusion")
    run = parallel.map_step(step_of(task), donate_state=False)
    values, gradients, _ = jax.device_get(run(variables, parallel.shard_batch(batch), constants))
    for n in range(2):
        stored = list(np.load(tmp_path / f"{n}.npz").values())
        assert_same([values["loss"], *jax.tree.leaves(gradients)], stored, 1e-5)
