"""What a run starts from: another run's weights, or pretrained ones."""

import json
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from avemo.runs import checkpoints
from avemo.runs.weights import fingerprint
from media.errors import UserError


def provenance(config: ConfigDict) -> dict[str, str]:
    """SHA-256 of the weights that `config.model.init_from` names, by role; empty where it names none."""
    folder = config.model.get("init_from")
    if not folder:
        return {}
    path = epath.Path(folder) / "provenance.json"
    if path.exists():
        return {"init_from": json.loads(path.read_text()).get("sha256", "")}
    return {"init_from": fingerprint(checkpoints.load(folder)[2])}


def initialise(init: Callable, key: jax.Array, *inputs: Any) -> dict[str, Any]:
    """Runs `init(key, *inputs)` compiled, so that not every layer's initialiser is compiled on its own.

    It runs once: on the CPU, where optimising it would take longer than everything it does, it is not optimised.
    """
    on_cpu = jax.default_backend() == "cpu"
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True} if on_cpu else {}
    return dict(jax.jit(init, compiler_options=options)(key, *inputs))


def from_pretrained(variables: dict[str, Any], config: ConfigDict) -> dict[str, Any]:
    """Replaces what `config.model.init_from` (a folder made by `avemo.models.pretrained`, or a run) has weights for."""
    if not config.model.get("init_from"):
        return variables
    from avemo.models import pretrained

    return pretrained.initialise(variables, config.model.init_from)


__all__ = ["UserError", "from_pretrained", "initialise", "provenance"]
