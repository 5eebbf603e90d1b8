"""Reductions over all devices: over the device axis where it is bound, and the identity elsewhere.

A function that is mapped over devices (`avemo.ops.parallel.map_step`) is traced with the axis `AXIS` bound. The same
function called on its own, on one device, sees the whole batch already. So a loss or a network says "over all devices"
by calling these functions, without an argument for where it runs. JAX keys its caches of traced functions by the bound
axes, so a jitted function may be called in both ways.
"""

from typing import TypeVar

import jax

AXIS = "batch"

Tree = TypeVar("Tree")


def is_bound() -> bool:
    """Whether the code being traced is mapped over devices."""
    try:
        jax.lax.axis_size(AXIS)
    except NameError:  # how JAX says that no axis of this name is bound
        return False
    return True


def count() -> int:
    """Number of devices; 1 outside a mapped function."""
    return jax.lax.axis_size(AXIS) if is_bound() else 1


def index() -> jax.Array | int:
    """Position of this device, from 0; 0 outside a mapped function."""
    return jax.lax.axis_index(AXIS) if is_bound() else 0


def psum(x: Tree) -> Tree:
    """Sums each array over all devices."""
    return jax.lax.psum(x, AXIS) if is_bound() else x


def pmean(x: Tree) -> Tree:
    """Averages each array over all devices."""
    return jax.lax.pmean(x, AXIS) if is_bound() else x


def all_gather(x: jax.Array) -> jax.Array:
    """Joins the rows of all devices, in the order of the devices: [B_local, ...] -> [B, ...]."""
    return jax.lax.all_gather(x, AXIS, axis=0, tiled=True) if is_bound() else x
