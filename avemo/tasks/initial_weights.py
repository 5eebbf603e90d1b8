"""The weights that a run starts from: freshly drawn, another run's, or pretrained; and their fingerprints."""

import json
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from avemo.models import pretrained
from avemo.ops import hardware
from avemo.runs import checkpoints
from avemo.runs.weights import fingerprint


def initialise(init: Callable, key: jax.Array, *inputs: Any) -> dict[str, Any]:
    """Runs `init(key, *inputs)` as one program (`run_once`). Under `jax.eval_shape` nothing is compiled."""
    if isinstance(key, jax.core.Tracer):
        return dict(init(key, *inputs))
    return dict(run_once(init, key, *inputs))


def run_once(function: Callable, *arguments: Any) -> Any:
    """Runs a function of arrays as one compiled program, so that each of its operations is not compiled separately.

    It runs on the host's CPU, whatever the accelerator: a run has the same initial weights on every platform, and an
    accelerator's compiler would take far longer. XLA:CPU takes longer to optimise such a program than to run it, so it
    is not optimised.
    """
    with hardware.on_cpu() as cpu:
        options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True} if cpu else {}
        return jax.jit(function, compiler_options=options)(*arguments)


def from_pretrained(variables: dict[str, Any], config: ConfigDict) -> dict[str, Any]:
    """Replaces the variables that `config.model.init_from` has weights for.

    `init_from` is a folder made by `avemo.models.pretrained`, or a run, whose best checkpoint is used.
    """
    folder = config.model.get("init_from")
    if not folder:
        return variables
    if (epath.Path(folder) / "config.json").exists():
        _, step, trained = checkpoints.load(folder)
        return pretrained.initialise_from_run(variables, trained, f"run {folder} step {step}")
    return pretrained.initialise(variables, pretrained.load_pretrained(folder))


def provenance(config: ConfigDict) -> dict[str, str]:
    """The SHA-256 of the weights that `config.model.init_from` names, by role; empty if it names none."""
    folder = config.model.get("init_from")
    if not folder:
        return {}
    path = epath.Path(folder) / "provenance.json"
    if path.exists():
        return {"init_from": json.loads(path.read_text()).get("sha256", "")}
    return {"init_from": fingerprint(checkpoints.load(folder)[2])}
