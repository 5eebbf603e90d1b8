"""Seeds over devices: if there are several devices, each trains its own seeds, on whole batches.

The devices then exchange nothing: the axis `device_axis.AXIS`, over which a step reduces, has one device. With a single
seed, or several processes, the batch is shared among the devices instead, as in a single run.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from avemo.evaluation.scoring import over_all_devices
from avemo.ops import device_axis, parallel

SEEDS = "seeds"
Step = Callable[[Any, Any, Any], Any]


def mesh(seeds: int) -> Mesh | None:
    """The devices that are of use, `[seeds, 1]` over the axes (`SEEDS`, `device_axis.AXIS`); None: share the batch."""
    if seeds == 1 or jax.local_device_count() == 1 or jax.process_count() > 1:
        return None
    return of_devices(seeds, jax.local_devices())


def of_devices(seeds: int, devices: list[jax.Device]) -> Mesh:
    """The mesh of the `devices` that are needed: five seeds use three of four devices, with two, two and one."""
    each = -(-seeds // len(devices))
    chosen = np.asarray(devices[: -(-seeds // each)])[:, None]
    return Mesh(chosen, (SEEDS, device_axis.AXIS), axis_types=(AxisType.Auto,) * 2)


def slots(seeds: int, over: Mesh | None) -> int:
    """The number of seeds, rounded up to a multiple of the devices that share them."""
    count = over.shape[SEEDS] if over else 1
    return -(-seeds // count) * count


def padded(x: np.ndarray, axis: int, size: int) -> np.ndarray:
    """`x` with its last slice along `axis` repeated up to `size`."""
    missing = size - x.shape[axis]
    return np.concatenate([x, np.repeat(np.take(x, [-1], axis), missing, axis)], axis) if missing else x


def place(over: Mesh | None, tree: Any, spec: PartitionSpec) -> Any:
    """Puts a tree on the mesh by `spec`; without a mesh on every device."""
    return jax.device_put(tree, NamedSharding(over, spec)) if over else parallel.replicate(tree)


def place_batch(over: Mesh | None, batch: dict[str, np.ndarray], seeds: int, mode: str) -> Any:
    """Puts a batch `{field: [B, S, ...]}` of S seeds on the devices: split by seeds, or without a mesh by rows."""
    if over is None:
        return parallel.shard_batch(batch, mode)
    batch = {name: padded(x, 1, slots(seeds, over)) for name, x in batch.items()}
    return jax.device_put(batch, NamedSharding(over, PartitionSpec(None, SEEDS)))


def rows_multiple(over: Mesh | None, pieces: int) -> int:
    """The number that must divide the rows of a batch, if each device cuts its share into `pieces` micro-batches."""
    return pieces * (1 if over else jax.local_device_count())


def map_step(step: Step, over: Mesh | None, mode: str) -> Step:
    """Maps `step(states [S, ...], batch [B, S, ...], constants) -> (states, values [K, S])` of K steps."""
    if over is None:
        return parallel.map_step(step, mode)
    seeds, none = PartitionSpec(SEEDS), PartitionSpec()
    out = (seeds, PartitionSpec(None, SEEDS))
    return _shard_map(step, over, (seeds, PartitionSpec(None, SEEDS), none), out, (0,))


def map_prediction(predict: Callable, over: Mesh | None, mode: str) -> Callable[[Any, Any], dict[str, np.ndarray]]:
    """Maps `predict(variables [S, ...], batch [B, ...]) -> outputs [B, S, ...]`, host arrays in and out."""
    if over is None:
        return over_all_devices(predict, mode)
    specs = (PartitionSpec(SEEDS), PartitionSpec())
    mapped = _shard_map(predict, over, specs, PartitionSpec(None, SEEDS), ())
    return lambda variables, batch: jax.device_get(mapped(variables, batch))


def _shard_map(function: Callable, over: Mesh, in_specs: Any, out_specs: Any, donate: tuple[int, ...]) -> Callable:
    mapped = jax.shard_map(function, mesh=over, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return jax.jit(mapped, donate_argnums=donate)
