"""Seeds over devices: where there are several, each trains seeds of its own, on whole batches.

Nothing passes between the devices then. The axis `parallel.AXIS` that a step reduces over has one device; with a
single seed, or several processes, the batch is shared among the devices instead, as in a run alone.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from avemo.ops import parallel

SEEDS = "seeds"
Step = Callable[[Any, Any, Any], Any]


def mesh(seeds: int) -> Mesh | None:
    """Devices `[seeds, 1]` over the axes (`SEEDS`, `parallel.AXIS`), as many as are of use; None: share the batch."""
    if seeds == 1 or jax.local_device_count() == 1 or jax.process_count() > 1:
        return None
    return of_devices(seeds, jax.local_devices())


def of_devices(seeds: int, devices: list[jax.Device]) -> Mesh:
    """The mesh of those of `devices` that are of use: five seeds on four devices go two, two and one to three."""
    each = -(-seeds // len(devices))
    chosen = np.asarray(devices[: -(-seeds // each)])[:, None]
    return Mesh(chosen, (SEEDS, parallel.AXIS), axis_types=(AxisType.Auto,) * 2)


def slots(seeds: int, over: Mesh | None) -> int:
    """Seeds with those that only fill up the last device."""
    count = over.shape[SEEDS] if over else 1
    return -(-seeds // count) * count


def padded(x: np.ndarray, axis: int, size: int) -> np.ndarray:
    """`x` with its last slice along `axis` repeated up to `size`."""
    missing = size - x.shape[axis]
    return np.concatenate([x, np.repeat(np.take(x, [-1], axis), missing, axis)], axis) if missing else x


def place(over: Mesh | None, tree: Any, spec: PartitionSpec) -> Any:
    """Puts a tree on the mesh by `spec`; without a mesh on every device."""
    return jax.device_put(tree, NamedSharding(over, spec)) if over else parallel.replicate(tree)


def map_step(step: Step, over: Mesh | None, mode: str) -> Step:
    """Maps `step(states [S, ...], batch [B, S, ...], constants) -> (states, values [S])`; batches are host arrays."""
    if over is None:
        mapped = parallel.map_step(step, mode)
        return lambda states, batch, constants: mapped(states, parallel.shard_batch(batch, mode), constants)
    seeds = PartitionSpec(SEEDS)
    mapped = _shard_map(step, over, (seeds, PartitionSpec(None, SEEDS), PartitionSpec()), seeds, (0,))
    return lambda states, batch, constants: mapped(
        states, jax.tree.map(lambda x: padded(x, 1, len(states[0])), batch), constants
    )


def map_prediction(predict: Step, over: Mesh | None, mode: str) -> Callable[[Any, Any], dict[str, np.ndarray]]:
    """Maps `predict(variables [S, ...], batch [B, ...], {}) -> outputs [B, S, ...]`, host arrays in and out."""
    if over is None:
        mapped = parallel.map_step(predict, mode, donate_state=False, gather_outputs=True)
        return lambda variables, batch: parallel.unshard(mapped(variables, parallel.shard_batch(batch, mode), {}), mode)
    everywhere = PartitionSpec()
    specs = (PartitionSpec(SEEDS), everywhere, everywhere)
    mapped = _shard_map(predict, over, specs, PartitionSpec(None, SEEDS), ())
    return lambda variables, batch: jax.device_get(mapped(variables, batch, {}))


def _shard_map(function: Step, over: Mesh, in_specs: Any, out_specs: Any, donate: tuple[int, ...]) -> Step:
    mapped = jax.shard_map(function, mesh=over, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return jax.jit(mapped, donate_argnums=donate)
