"""Compiles the training step for accelerators that the host does not have, and reports the compiler's figures.

`python launch.py compile --config=configs/paper/teacher.py --topology=v5e:2x4` needs no TPU and no data: `libtpu`
contains the TPU's whole compiler, and shapes follow from the config. The step is the one that training runs:
`step.make_step` mapped by `parallel.map_step`, over the devices of the topology instead of those of the host.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from avemo import configuration, tasks
from avemo.aot import abstract, hlo, roofline
from avemo.models import from_config
from avemo.ops import device_axis, parallel
from avemo.training import flops, step
from media.errors import UserError, unknown

PLATFORMS = ("tpu", "cuda")


def lower(config: ConfigDict, mesh: Any, sizes: dict[str, int], platform: str) -> tuple[Any, Any, int]:
    """Traces and lowers the mapped step for a mesh whose devices need not exist.

    Sizes that devices and `config.accumulate` do not divide evenly are padded, as in training.

    Returns:
      The traced and the lowered function, and the number of examples in the batch.
    """
    stage = tasks.make(config)
    state, tx = abstract.initial_state(stage, config, sizes)
    mapped: Any = parallel.map_step(step.make_step(stage, config, tx), "shard_map", mesh=mesh)
    whole, split = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec(device_axis.AXIS)))

    def place(tree: Any, sharding: NamedSharding) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    batch = abstract.padded(stage.input_spec(sizes), mesh.size * config.accumulate)
    constants = {**stage.constants_spec(), **step.seed_constant(config)}
    traced = mapped.trace(place(state, whole), place(batch, split), place(constants, whole))
    return traced, traced.lower(lowering_platforms=(platform,)), stage.examples(sizes)


@contextlib.contextmanager
def _quiet_libtpu() -> Iterator[None]:
    """Settings that let `libtpu` describe a slice on a host without a TPU, and during another compilation."""
    settings = {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_LOG_DIR": "disabled",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update({name: value for name, value in settings.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def tpu_mesh(topology: str) -> Mesh:
    """The devices of a TPU slice, described by the compiler.

    Raises:
      UserError: `libtpu` is not installed, or does not know the slice.
    """
    roofline.chip(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "compiling for a TPU needs libtpu, the TPU's compiler: pip install -r requirements-tpu-compile.txt."
        )
    from jax.experimental import topologies

    with _quiet_libtpu():
        try:
            described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"--topology={topology}: {reason}; examples: v4:2x2x2, v5e:2x4, v5p:2x2x1, v6e:2x4."
            ) from error
    return Mesh(np.asarray(described.devices), (device_axis.AXIS,), axis_types=(AxisType.Auto,))


class OutOfMemory(Exception):
    """The program needs more HBM than the chip has: `needed` bytes, or None if the compiler does not say."""

    def __init__(self, message: str):
        super().__init__(message)
        found = re.search(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT])", message)
        self.needed = float(found[1]) * _UNITS[found[2]] if found else None


_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


# The compiler's option that places arrays in fast memory, by TPU version. On v4 the compiler places none there.
_FAST_MEMORY = {
    "v5e": "xla_vf_vmem_memory_space_assignment",
    "v5p": "xla_vf_vmem_memory_space_assignment",
    "v6e": "xla_gf_vmem_memory_space_assignment",
}


def compile_tpu(
    config: ConfigDict, topology: str, mesh: Mesh, sizes: dict[str, int], top: int = 0, hbm_only: bool = False
) -> dict[str, Any]:
    """Compiles the step for a slice; `top` and `hbm_only` as in `run`.

    Returns:
      The compiler's figures for one device's step (see `avemo.aot.printout`).

    Raises:
      OutOfMemory: it does not fit.
    """
    began = time.time()
    traced, lowered, examples = lower(config, mesh, sizes, "tpu")
    lowered_at = time.time()
    compiled = _compiled(lowered, topology, hbm_only)
    seconds = {"lower": round(lowered_at - began, 1), "compile": round(time.time() - lowered_at, 1)}
    moved = hlo.traffic(compiled.as_text())
    operations = flops.of_jaxpr(traced.jaxpr.jaxpr, "tpu")
    on, per_device = roofline.chip(topology), examples / mesh.size
    used = _memory_used(compiled.memory_analysis())
    limits = roofline.bound(
        on,
        flops=operations,
        bytes_moved=moved.hbm_bytes,
        reduced_bytes=sum(kind["bytes"] for kind in moved.collectives.values()),
        devices=mesh.size,
        examples=per_device,
    )
    heaviest = sorted(moved.costs, key=lambda c: c.hbm_bytes + c.operand_bytes, reverse=True)[:top]
    return {
        "fits": used <= on.hbm_bytes,
        "hbm_used": used,
        "hbm_free": on.hbm_bytes - used,
        "flops": operations,
        "hbm_bytes_moved": moved.hbm_bytes,
        "operand_bytes": moved.operand_bytes,
        "collectives": moved.collectives,
        "loop_iterations": moved.iterations,
        "bound": dataclasses.asdict(limits),
        # The same bound with more counted as memory traffic than goes to HBM (see `hlo`).
        "examples_per_second_without_fast_memory": per_device / (moved.operand_bytes / on.hbm_bandwidth),
        "xla": _by_xla(compiled.cost_analysis(), on, per_device),
        "seconds": seconds,
        "examples_per_device": per_device,
        **({"top": [dataclasses.asdict(c) for c in heaviest]} if top else {}),
    }


def _compiled(lowered: Any, topology: str, hbm_only: bool) -> Any:
    option = _FAST_MEMORY.get(topology.split(":")[0]) if hbm_only else None
    with _quiet_libtpu():
        try:
            return lowered.compile(compiler_options={option: False} if option else None)
        except jax.errors.JaxRuntimeError as error:
            # Only the text of a JaxRuntimeError holds its status.
            if "RESOURCE_EXHAUSTED" in str(error):
                raise OutOfMemory(str(error)) from error
            raise


def _memory_used(memory: Any) -> int:
    """Bytes of HBM that a program takes while it runs."""
    arrays = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return arrays + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes


def _by_xla(cost: dict[str, float], on: roofline.Chip, examples: float) -> dict[str, float | None]:
    """What XLA's own cost analysis says, and the rate that its bytes would bound."""
    accessed = cost.get("bytes accessed")
    rate = examples / (accessed / on.hbm_bandwidth) if accessed else None
    return {"flops": cost.get("flops"), "bytes_accessed": accessed, "examples_per_second": rate}


def lower_cuda(config: ConfigDict, devices: int, sizes: dict[str, int]) -> dict[str, Any]:
    """Lowers the step for CUDA devices, as `jax.export` does. Nothing is compiled: that takes a GPU."""
    began = time.time()
    mesh = AbstractMesh((devices,), (device_axis.AXIS,), axis_types=(AxisType.Auto,))
    traced, lowered, examples = lower(config, mesh, sizes, "cuda")
    text = lowered.as_text()
    counts = {kind: len(re.findall(rf"stablehlo\.{kind.replace('-', '_')}\b", text)) for kind in hlo.COLLECTIVES}
    return {
        "lowers": True,
        "flops": flops.of_jaxpr(traced.jaxpr.jaxpr, "cuda"),
        "collectives": {kind: {"count": count} for kind, count in counts.items() if count},
        "examples_per_device": examples / devices,
        "not_checked": ["memory", "bytes moved", "kernels chosen by cuDNN and cuBLAS", "speed", "that it runs"],
        "seconds": {"lower": round(time.time() - began, 1)},
    }


def largest(fits: Callable[[int], bool], start: int, *, precision: int = 16) -> int:
    """The largest multiple that fits, by doubling and halving, to one part in `precision`; 0 if none does.

    Args:
      fits: whether a multiple (≥ 1) fits; each call is a compilation.
      start: where to begin.
      precision: when to stop.
    """
    low, high = 0, 0
    trial = start
    while not high or high - low > max(1, low // precision):
        if fits(trial):
            low = trial
        else:
            high = trial
        trial = (low + high) // 2 if high else 2 * low
        if high == 1:
            break
    return low


def run(
    config: ConfigDict,
    topology: str,
    platform: str = "tpu",
    search: bool = False,
    say: Callable = lambda text: None,
    top: int = 0,
    hbm_only: bool = False,
) -> dict[str, Any]:
    """Compiles the training step of a config for a slice.

    Args:
      config: any experiment; data folders may be empty.
      topology: TPU version and shape, `v5e:2x4`; with platform "cuda", the number of GPUs.
      platform: "tpu", or "cuda", for which the step is only lowered.
      search: whether to look for the largest batch per chip; all streams of the batch grow alike.
      say: called with a line of progress at each compilation of a search.
      top: how many instructions to list, those that move the most bytes.
      hbm_only: compile with every array in HBM. The program is slower, but XLA's `bytes accessed` is then the
        operations' own traffic, without copies to fast memory and back.

    Returns:
      A JSON-able report; sizes in bytes, for one device.

    Raises:
      UserError: no such platform or slice, `libtpu` is missing, or an invalid number of micro-batches.
    """
    dtype = from_config.decided(config.model.get("dtype", ""), accelerator=True)
    config = configuration.in_dtype(config, dtype)
    sizes = tasks.make(config).sizes()
    header = {"task": config.task, "platform": platform, "topology": topology, "batch": sizes, "dtype": dtype}
    if platform == "cuda":
        if not topology.isdecimal() or not int(topology):
            raise UserError(f"--topology={topology}: with --platform=cuda it is the number of GPUs, such as 8.")
        return {**header, "devices": int(topology), **lower_cuda(config, int(topology), sizes)}
    if platform != "tpu":
        raise unknown("platform", platform, PLATFORMS)
    mesh = tpu_mesh(topology)
    header["devices"] = mesh.size
    try:
        result = compile_tpu(config, topology, mesh, sizes, top, hbm_only)
    except OutOfMemory as error:
        capacity = roofline.chip(topology).hbm_bytes
        free = None if error.needed is None else capacity - error.needed
        result = {"fits": False, "hbm_used": error.needed, "hbm_free": free}
    if search:
        result["search"] = _search(config, topology, mesh, sizes, dict(result), say)
    return {**header, **result}


def _search(
    config: ConfigDict, topology: str, mesh: Mesh, sizes: dict[str, int], first: dict[str, Any], say: Callable
) -> dict[str, Any]:
    uneven = any(size % mesh.size for size in sizes.values())
    unit = math.gcd(*(size if uneven else size // mesh.size for size in sizes.values()))
    share = {stream: size // unit for stream, size in sizes.items()}
    reports: dict[int, dict[str, Any]] = {unit: first}  # the config's own batch is compiled already

    def fits(multiple: int) -> bool:
        grown = {stream: size * multiple for stream, size in share.items()}
        try:
            if multiple not in reports:
                reports[multiple] = compile_tpu(config, topology, mesh, grown)
        except OutOfMemory:
            reports[multiple] = {"fits": False}
        say(f"{multiple} x {share}: {'fits' if reports[multiple]['fits'] else 'does not fit'}")
        return reports[multiple]["fits"]

    best = largest(fits, unit)
    if not best:
        return {"batch": None}
    return {"batch": {stream: size * best for stream, size in share.items()}, **reports[best]}
