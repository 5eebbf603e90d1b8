"""Every task gives one device's numbers on eight, and on two processes of four: loss, metrics, gradients and state,
with masked rows in the batch and dropout on.

Summing in another order changes the rounding, which later layers amplify. Gradients of teacher and student pass through
every batch norm: float32 leaves differences of up to 4e-5 of the largest entry of a small tensor, and 2e-6 of the
largest of all. So these two are compared in float64, where the same step agrees to 1e-13 (the student to 1e-6, because
its losses stay in float32).
"""

import contextlib
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

from avemo import configuration, tasks
from avemo.aot import abstract
from avemo.data import padding
from avemo.evaluation import scoring
from avemo.models import from_config
from avemo.ops import device_axis, parallel
from avemo.training import accumulation, optimizer
from avemo.training.state import TrainState, initial_state
from avemo.training.step import make_step, seed_constant
from helpers import tiny_runs, toy

TINY_FACES = [
    *("--config.model.width=0.0625", "--config.model.repeats_35=1", "--config.model.repeats_17=1"),
    *("--config.model.neck_channels=8", "--config.model.dense_layers=1", "--config.model.dense_growth=4"),
]
TINY = {
    "teacher": TINY_FACES,
    "student": [*TINY_FACES, "--config.loss.distillation.rkd_weight=1.0"],
    "audio": [
        *("--config.model.width=0.0625", "--config.model.fc_dim=16", "--config.model.embedding_dim=8"),
        "--config.data.windows=1",
    ],
    "fusion": [
        *("--config.model.fusion_args.features=8", "--config.model.temporal_args.features=8"),
        *("--config.data.sequence_length=12", "--config.model.dropout=0.5"),
    ],
    "end_to_end": ["--config.data.sequence_length=4"],
}
FACES = ("teacher", "student")
# The same with a network of few layers, for `make test`: the teacher's own takes minutes to compile so often.
SMALL = {"small teacher": [], "small student": ["--config.loss.distillation.rkd_weight=1.0"]}


@contextlib.contextmanager
def precision(dtype):
    """Tasks made inside compute in float64, if that is the `dtype`."""
    if dtype == "float32":
        yield
        return
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        patch.setitem(from_config.DTYPES, "float64", jnp.float64)  # for this proof only, because no accelerator has it
        yield


@pytest.fixture(scope="module")
def fusion_run(tmp_path_factory):
    """An untrained fusion run with untrained encoders, from which `end_to_end` starts."""
    folder = tmp_path_factory.mktemp("runs")
    encoders = tiny_runs.visual(folder / "visual", width=0.125), tiny_runs.audio(folder / "audio", embedding_dim=128)
    return tiny_runs.fusion(folder / "fusion", *encoders, dims={"visual": 128, "audio": 128})


def problem(name, overrides=(), fusion=""):
    """A tiny stage with random weights and a random global batch, with one masked row per stream."""
    overrides = [*(TINY | SMALL)[name], *overrides, *([f"--config.fusion={fusion}"] if name == "end_to_end" else [])]
    folder = "tests/helpers/experiments" if name in SMALL else "configs/demo"
    config = configuration.load(f"{folder}/{name.removeprefix('small ')}.py:smoke", overrides)
    wide = jax.config.jax_enable_x64
    config.model.dtype = "float64" if wide else config.model.get("dtype", "float32")
    task = tasks.make(config)
    sizes = task.sizes()
    rng = np.random.default_rng(0)

    def cast(x):
        return x.astype(np.float64 if wide and x.dtype == np.float32 else x.dtype)

    def weight(path, x):
        positive = any(word in jax.tree_util.keystr(path) for word in ("var", "std", "scale"))
        fan_in = max(np.prod(x.shape[:-1]), 4)
        return cast(
            (rng.uniform(0.8, 1.2, x.shape) if positive else rng.normal(0, 1.4 / fan_in**0.5, x.shape)).astype(x.dtype)
        )

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
        return cast(rng.normal(0, 1, x.shape).astype(x.dtype))

    variables = jax.tree_util.tree_map_with_path(weight, abstract.variables(task, sizes))
    constants = jax.tree_util.tree_map_with_path(weight, task.constants_spec())

    def batch():
        return jax.tree_util.tree_map_with_path(value, task.spec(sizes))

    return config, task, variables, batch, constants


def step_of(task, pieces=1):
    """A step that returns values, gradients and model state."""

    def step(variables, batch, constants):
        state = {k: v for k, v in variables.items() if k != "params"}
        (loss, (state, values)), gradients = accumulation.value_and_grad(task, pieces)(
            variables["params"], state, constants, batch, jax.random.key(7)
        )
        return {"loss": loss, **values}, jax.lax.pmean(gradients, device_axis.AXIS), state

    return step


def one_device():
    return Mesh(np.asarray(jax.devices()[:1]), (device_axis.AXIS,), axis_types=(AxisType.Auto,))


def assert_same(one, many, tolerance=1e-5, of_all=1e-2):
    """Each tensor agrees to `tolerance` of its largest entry, or of `of_all` times the largest entry of all tensors."""
    # A convolution's bias before batch norm has only rounding as its gradient: small beside the largest is equal.
    floor = of_all * tolerance * max([np.abs(leaf).max() for leaf in jax.tree.leaves(one)], default=0)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(many), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert np.isfinite(a).all(), jax.tree_util.keystr(path)
        np.testing.assert_allclose(
            b, a, rtol=tolerance, atol=max(floor, tolerance * np.abs(a).max()), err_msg=jax.tree_util.keystr(path)
        )


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float32") for name in ("audio", "fusion", "end_to_end")),
        *(pytest.param(name, "float64", marks=pytest.mark.slow) for name in FACES),
    ],
)
def test_five_steps_on_eight_devices_are_those_of_one(name, dtype, fusion_run):
    # SGD, whose momentum is a sum of gradients. Adam divides a gradient by its size, and so turns rounding in one near
    # zero into a full step.
    sgd = [
        *("--config.optimizer.name=sgd", "--config.optimizer.learning_rate=0.001"),
        *("--config.optimizer.schedule=constant", "--config.optimizer.warmup=0.0"),
    ]
    with precision(dtype):
        config, task, variables, draw, constants = problem(name, sgd, fusion_run)
        params, constants = variables.pop("params"), {**constants, **seed_constant(config)}
        tx = optimizer.make(config, 5, params)
        step = make_step(task, config, tx)
        on_one = parallel.map_step(step, "shard_map", mesh=one_device(), donate_state=False)
        on_eight = parallel.map_step(step, donate_state=False)
        one = eight = TrainState(jnp.zeros((), jnp.int32), params, variables, tx.init(params), {})
        losses = []
        for _ in range(5):
            batch = draw()
            # The networks of `end_to_end` have no float64. Where inputs differ by a rounding, not every ReLU is on the
            # same side of 0: its eight devices take each step from the state that one arrived at, and
            # are compared against the largest gradient.
            start, of_all = (one, 1.0) if name == "end_to_end" else (eight, 1e-2)
            eight, eight_values = jax.device_get(
                on_eight(parallel.replicate(start), parallel.shard_batch(batch), constants)
            )
            one, one_values = jax.device_get(on_one(one, batch, constants))
            assert_same(one_values, eight_values)
            losses.append(float(one_values["loss"]))
            for field in ("params", "opt_state", "model_state"):
                assert_same(getattr(one, field), getattr(eight, field), of_all=of_all)
    assert one.step == eight.step == 5
    assert len(set(losses)) == 5
    assert any(np.abs(trace).max() > 0 for trace in jax.tree.leaves(one.opt_state))


def accumulated(name, pieces, devices, rows=lambda x: x, overrides=(), dtype="float32"):
    """Loss, values, gradients and state of a step over `rows(batch)`, in micro-batches."""
    with precision(dtype):
        _, task, variables, draw, constants = problem(name, overrides)
        batch = padding.pad_batch(jax.tree.map(rows, draw()), devices * pieces)
        mesh = Mesh(np.asarray(jax.devices()[:devices]), (device_axis.AXIS,), axis_types=(AxisType.Auto,))
        run = parallel.map_step(step_of(task, pieces), "shard_map", donate_state=False, mesh=mesh)
        return jax.device_get(run(variables, jax.tree.map(jnp.asarray, batch), constants))


@pytest.mark.parametrize(("name", "devices"), [("audio", 1), ("audio", 2), ("fusion", 1), ("fusion", 8)])
def test_accumulated_gradients_are_those_of_the_whole_batch(name, devices):
    # One CCC over all rows, which is not the mean of the micro-batches' CCCs. Dropout is on in fusion.
    per_batch = {"overrides": ["--config.loss.per=batch"]}
    if name == "fusion":  # four rows per device and micro-batch; audio's eight rows are slow enough
        per_batch["rows"] = lambda x: np.concatenate([x, x[::-1]] * 2)
    assert_same(accumulated(name, 1, 1, **per_batch), accumulated(name, 4, devices, **per_batch))


@pytest.mark.parametrize("name", ["small teacher", pytest.param("teacher", marks=pytest.mark.slow)])
def test_micro_batches_with_equal_statistics_give_the_batch_s_numbers(name):
    # Rows 0 and 1 four times: every micro-batch has the batch's statistics, which alone may differ.
    again = lambda x: np.concatenate([x[:2]] * 4)  # noqa: E731
    one, many = (accumulated(name, pieces, 1, again, dtype="float64") for pieces in (1, 4))
    assert_same(one, many)


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        *(("small teacher", 1), ("small student", 1), ("audio", 2), ("fusion", 2)),
        *(pytest.param(name, 1, marks=pytest.mark.slow) for name in FACES),
    ],
)
def test_a_batch_of_any_size_gives_its_own_numbers_on_any_number_of_devices(name, pieces):
    dtype = "float64" if name in (*FACES, *SMALL) else "float32"
    one, many = (accumulated(name, *split, rows=lambda x: x[:5], dtype=dtype) for split in ((1, 1), (pieces, 4)))
    assert_same(one, many)  # batch statistics leave out the padding too


def test_scores_on_eight_devices_are_those_of_one_with_a_last_batch_that_is_not_full(tmp_path):
    clips = toy.clips(tmp_path, train=2, dev=5, frames=20, segments=1)
    config = configuration.load("configs/demo/audio.py:smoke", [f"--config.data.clips={clips}", *TINY["audio"]])
    config.data.eval_batch, config.data.delay = 3, 0.0
    stage = tasks.make(config)
    data = tasks.open_data(stage)
    state, _ = initial_state(stage, data, config)
    eight, predicted = scoring.make_evaluator(stage, data)(state.variables, "dev")
    one, _ = data.score(jax.jit(stage.predict), jax.device_get({"params": state.params}), "dev", tasks.Scoring())
    assert len(predicted["prediction"]) == 5
    assert one.keys() == eight.keys()
    np.testing.assert_allclose(list(eight.values()), list(one.values()), rtol=1e-5)


_CHILD = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
import numpy as np
import test_devices
from avemo.ops import device_axis, parallel
_, task, variables, draw, constants = test_devices.problem("fusion")
batch = draw()
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
    here = pathlib.Path(__file__).resolve()
    paths = [str(here.parents[3]), str(here.parents[2]), str(here.parent)]
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
    _, task, variables, draw, constants = problem("fusion")
    batch = draw()
    run = parallel.map_step(step_of(task), donate_state=False)
    values, gradients, _ = jax.device_get(run(variables, parallel.shard_batch(batch), constants))
    for n in range(2):
        stored = list(np.load(tmp_path / f"{n}.npz").values())
        assert_same([values["loss"], *jax.tree.leaves(gradients)], stored, 1e-5)
