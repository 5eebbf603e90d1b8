"""Wherever the data lies, however a step is mapped and however many run per dispatch: the same run."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from avemo import configuration, tasks
from avemo.data import padding
from avemo.ops import device_axis, parallel
from avemo.training import dispatch
from avemo.training.state import initial_state
from avemo.training.step import make_step, seed_constant
from helpers import sequences, toy

STEPS = 20
# SGD, because Adam makes rounding in a gradient near zero as large as any step.
SGD = (
    *("--config.optimizer.name=sgd", "--config.optimizer.learning_rate=0.01", "--config.optimizer.schedule=constant"),
    *("--config.optimizer.warmup=0.0", f"--config.steps={STEPS}", "--config.log_every=20", "--config.eval_every=20"),
)
SMALL = {
    "teacher": (
        *("--config.model.width=0.0625", "--config.model.repeats_35=1", "--config.model.repeats_17=1"),
        *("--config.model.neck_channels=8", "--config.model.dense_layers=1", "--config.model.dense_growth=4"),
        *(
            "--config.data.augment.operations=1",
            "--config.data.augment.magnitude=0.5",
            "--config.data.augment.erase=0.5",
        ),
    ),
    "audio": (
        *("--config.model.width=0.0625", "--config.model.fc_dim=8", "--config.model.embedding_dim=8"),
        *("--config.data.augment.spec_time=20", "--config.data.augment.spec_shift=2", "--config.data.delay=0.0"),
    ),
    "fusion": (
        *("--config.model.fusion_args.features=4", "--config.model.temporal_args.features=4"),
        *("--config.data.sequence_length=12", "--config.data.sequence_hop=6", "--config.model.dropout=0.3"),
    ),
}
# On other devices sums have another order. Now and then that carries an activation of a whole teacher over a kink, and
# the gradients below it change by more than rounding: there the teacher is compared with a frozen trunk.
SMALL["frozen"] = (*SMALL["teacher"], "--config.optimizer.freeze=('trunk',)")
CONFIGS = {"frozen": "teacher"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    faces = [f"--config.data.faces={toy.faces(folder)}", f"--config.data.triplets={toy.triplets(folder)}"]
    return {
        "teacher": faces,
        "frozen": faces,
        "audio": [f"--config.data.clips={toy.clips(folder, train=8, dev=2, frames=20, segments=1)}"],
        "fusion": [f"--config.data.features={sequences.write_features(folder, frames=(40, 9, 33))}"],
    }


def trained(name, folders, resident, bulk=1, mode="pmap", devices=8):
    """The parameters after 20 steps, the last 4 of them one by one if 16 run at once."""
    config = configuration.load(
        f"configs/demo/{CONFIGS.get(name, name)}.py:smoke",
        [*folders[name], *SGD, *SMALL[name], f"--config.data.resident={resident}"],
    )
    stage = tasks.make(config)
    data = tasks.open_data(stage)
    state, tx = initial_state(stage, data, config)
    feed = data.open_feed()
    assert set(feed.modes.values()) == {resident}
    mesh = Mesh(np.asarray(jax.devices()[:devices]), (device_axis.AXIS,), axis_types=(AxisType.Auto,))
    whole = devices == jax.device_count()
    map_step = functools.partial(parallel.map_step, mode=mode, mesh=None if whole else mesh)
    steps = dispatch.Steps(make_step(stage, config, tx), map_step)
    constants = {**({"tables": feed.tables} if feed.tables else {}), **seed_constant(config)}
    state, constants = (state, parallel.replicate(constants)) if whole else jax.device_get((state, constants))
    drawn = dispatch.Dispatches(iter(feed.batches), functools.partial(dispatch.steps_at, config, bulk), 0)
    done, counts = 0, []
    while done < STEPS:
        count, batches = next(drawn)
        batches = padding.pad_batch(batches, devices, count)
        batches = parallel.shard_batch(batches, mode) if whole else batches
        state, values = steps(count, state, batches, constants)
        assert values["loss"].shape == (count,)
        done += count
        counts.append(count)
    assert counts == ([1] * STEPS if bulk == 1 else [bulk, *[1] * (STEPS - bulk)])
    return jax.device_get(state.params)


@pytest.fixture(scope="module")
def plain(folders):
    """Each task trained the plain way: from the shards, by pmap over eight devices, one step at a time."""
    return functools.cache(lambda name: trained(name, folders, "off"))


def case(name, *how):
    return pytest.param(name, how, id="-".join(map(str, (name, *how))))


QUICK = [
    case("fusion", "device", 16, "pmap", 8),
    case("fusion", "host", 16, "shard_map", 1),
    case("audio", "device", 1, "shard_map", 8),
]
EVERY = [
    case(name, resident, bulk, mode, devices)
    for name in ("fusion", "audio")
    for resident in ("off", "host", "device")
    for bulk in (1, 16)
    for mode, devices in (("pmap", 8), ("shard_map", 8), ("shard_map", 1))
] + [
    case(name, resident, bulk, "shard_map", devices)
    for resident in ("host", "device")
    for name, bulk, devices in (("teacher", 1, 8), ("teacher", 16, 8), ("frozen", 16, 1))
]


def check(plain, folders, name, how):
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(plain(name)), jax.tree.leaves(trained(name, folders, *how)), strict=True
    ):
        tolerance = max(1e-5 * np.abs(x).max(), 1e-7)  # a bias before a BatchNorm has no gradient but rounding
        np.testing.assert_allclose(y, x, rtol=1e-5, atol=tolerance, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(("name", "how"), QUICK)
def test_twenty_steps_are_the_same(name, how, plain, folders):
    check(plain, folders, name, how)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "how"), EVERY)
def test_twenty_steps_are_the_same_in_every_mode(name, how, plain, folders):
    check(plain, folders, name, how)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["audio", "fusion"])
@pytest.mark.parametrize("bulk", [1, 16])
def test_on_the_same_devices_the_same_numbers(name, bulk, folders):
    """The same bits, even, from the same program. That of resident data also gathers, which changes what XLA fuses."""
    off, host, device = (trained(name, folders, mode, bulk) for mode in ("off", "host", "device"))
    jax.tree.map(np.testing.assert_array_equal, off, host)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(y, x, rtol=2e-6, atol=2e-6 * np.abs(x).max()), off, device)
