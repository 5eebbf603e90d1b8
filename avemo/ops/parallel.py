"""Maps a per-device step over every accelerator, without stacking the state and with the same numbers.

A *step* is a function of one device's share of the batch. It reduces over the device axis by itself
(`avemo.ops.device_axis`): losses return the global value, gradients are averaged, and BatchNorm's statistics are
synchronised. `map_step` runs it by `jax.pmap` or by `jax.shard_map`. Both give one device's numbers on any number of
devices. On a single device there is nothing to map: the step is compiled as it is, whatever the mode.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from avemo.ops.device_axis import AXIS
from media.errors import UserError, unknown

MODES = ("pmap", "shard_map")


def _mesh() -> jax.sharding.Mesh:
    # In the order of pmap's own mesh, process by process, so that the rows of a process are adjacent.
    # Auto axes, since Flax's recurrent layers fail under the Explicit default.
    devices = sorted(jax.devices(), key=lambda device: device.process_index)
    return jax.sharding.Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def _alone() -> bool:
    """Whether this process has the only device."""
    return jax.device_count() == 1


def map_step(
    step: Callable,
    mode: str = "pmap",
    *,
    donate_state: bool = True,
    gather_outputs: bool = False,
    mesh: jax.sharding.Mesh | None = None,
) -> Callable:
    """Maps `step(state, batch, constants) -> outputs` over all devices of all processes.

    Args:
      step: per-device function. `state` and `constants` are the same on every device, `batch` is its share.
      mode: "pmap" (default) or "shard_map".
      donate_state: whether the state's buffers may be reused for the outputs (a training step's new state).
      gather_outputs: False if the outputs are the same on every device (a training step); True if they have a leading
        batch axis to be joined over the devices (a prediction).
      mesh: the devices for "shard_map", to compile for other machines (`avemo.aot.compiler`); None takes all.

    Returns:
      A function of `(state, batch, constants)`; `batch` as made by `shard_batch`.
    """
    donate = (0,) if donate_state else ()
    if mode in MODES and mesh is None and _alone():
        # Placed as `replicate` places the state, so that a step that is given its own output is not compiled again.
        return jax.jit(step, donate_argnums=donate, out_shardings=NamedSharding(_mesh(), PartitionSpec()))
    if mode == "pmap":
        out_axes = 0 if gather_outputs else None
        return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=out_axes, donate_argnums=donate)
    if mode == "shard_map":
        out_specs = PartitionSpec(AXIS) if gather_outputs else PartitionSpec()
        mapped = jax.shard_map(
            step,
            mesh=mesh or _mesh(),
            in_specs=(PartitionSpec(), PartitionSpec(AXIS), PartitionSpec()),
            out_specs=out_specs,
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donate)
    raise unknown("parallel mode", mode, MODES)


def shard_batch(batch: Any, mode: str = "pmap") -> Any:
    """Splits this process's rows `[B_local, ...]` over its devices before the step that uses them.

    Returns arrays `[devices, B_local / devices, ...]` for pmap on several devices, global arrays `[B, ...]` sharded on
    `AXIS` otherwise.

    Raises:
      UserError: the number of rows is not a multiple of the number of devices.
    """
    devices = jax.local_device_count()

    def put(x: np.ndarray) -> jax.Array:
        x = np.asarray(x)
        if x.shape[0] % devices:
            raise UserError(
                f"{x.shape[0]} examples of a batch do not divide among {devices} devices: "
                "choose a batch size that is a multiple of the device count."
            )
        if mode == "pmap" and not _alone():
            return jax.device_put(
                x.reshape(devices, len(x) // devices, *x.shape[1:]), NamedSharding(_local_mesh(), PartitionSpec(AXIS))
            )
        return jax.make_array_from_process_local_data(NamedSharding(_mesh(), PartitionSpec(AXIS)), x)

    return jax.tree.map(put, batch)


def _local_mesh() -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.asarray(jax.local_devices()), (AXIS,), axis_types=(AxisType.Auto,))


def unshard(outputs: Any, mode: str = "pmap") -> Any:
    """Brings this process's rows of a gathered prediction back to the host, as NumPy arrays `[B_local, ...]`."""

    def fetch(x: jax.Array) -> np.ndarray:
        if x.is_fully_addressable:
            rows = np.asarray(x)
        else:
            shards = sorted(x.addressable_shards, key=lambda s: s.index[0].start or 0)
            rows = np.concatenate([np.asarray(s.data) for s in shards])
        return rows.reshape(-1, *rows.shape[2:]) if mode == "pmap" and not _alone() else rows

    return jax.tree.map(fetch, outputs)


def replicate(tree: Any) -> Any:
    """Puts the same state on all devices of all processes, the way a mapped step takes it.

    A step that is first called with a state placed differently is compiled twice, the second time for its own output.
    Every process passes the same values. An array that a mapped step returned is wrapped, not copied.
    """
    mesh, everywhere = _mesh(), PartitionSpec()
    if jax.process_count() > 1:
        return multihost_utils.host_local_array_to_global_array(tree, mesh, everywhere)
    return jax.device_put(tree, NamedSharding(mesh, everywhere))


def replicate_key(seed: int | jax.Array) -> jax.Array:
    """Returns the run's random key. Steps fold their number into it, examples their position in the global batch."""
    return jax.random.key(seed)
