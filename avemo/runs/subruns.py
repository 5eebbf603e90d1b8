"""A run that trained several networks together, taken apart: each as the folder of a run of its own.

What opens a fusion run and its encoders (`predict`, `export`, `extract`) opens these, and needs none of the runs that
the training started from.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from avemo import configuration
from avemo.runs import encoders, weights
from media.errors import UserError
from media.files import write_atomically

FOLDER = "parts"


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the networks.

    Attributes:
      config: of the run that it would be; variables: {"params": ..., **model state}, on the host.
      class_names: of its logits.
      output: which of an encoder's outputs is the fusion's feature.
    """

    config: ConfigDict
    variables: dict[str, Any]
    class_names: tuple[str, ...] = ()
    output: str = ""


def write(
    workdir: str | epath.Path, parts: Mapping[str, Part], seen: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    """Writes `parts/{fusion,visual,audio}` into a run's folder.

    Args:
      workdir: the run.
      parts: by name; all but `fusion` are its encoders.
      seen: how the training videos were seen, `faces` and `fps` of `encoders.json`.
      result: of the run; its scores are the fusion's.
    """
    card = {
        name: {"workdir": name, "fingerprint": weights.fingerprint(part.variables), "output": part.output}
        for name, part in parts.items()
        if name != "fusion"
    }
    for name, part in parts.items():
        folder = epath.Path(workdir) / FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        step, metrics = result["evaluated_step"], result["metrics"] if name == "fusion" else {}
        about = {"task": part.config.task, "step": step, "evaluated_step": step, "metrics": metrics}
        about["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(part.variables["params"]))
        (folder / weights.FILENAME).write_bytes(weights.pack(step, part.variables))
        (folder / "result.json").write_text(json.dumps({**about, "class_names": list(part.class_names)}, indent=2))
        if name == "fusion":
            (folder / encoders.FILENAME).write_text(json.dumps({**card, **seen}, indent=2))
        # The config comes last: with it the folder is a run.
        write_atomically(folder / "config.json", json.dumps(configuration.to_dict(part.config), indent=2))


def fusion_of(workdir: str) -> str:
    """The folder to open for what a run answers: of a run of several networks its fusion, of any other itself.

    Raises:
      UserError: the run has not been taken apart yet.
    """
    path = epath.Path(workdir) / "config.json"
    if not path.exists() or configuration.from_json(path).get("task") != "end_to_end":
        return workdir
    folder = epath.Path(workdir) / FOLDER / "fusion"
    if not (folder / "config.json").exists():
        raise UserError(f"{workdir} is not finished, so it has no {FOLDER}/fusion yet: let `launch.py train` end it.")
    return str(folder)


def whole_of(workdir: str) -> tuple[str, str]:
    """The run that a part was taken from and the part's name; of any other folder itself and ""."""
    folder = epath.Path(workdir)
    whole = folder.parent.parent
    if folder.parent.name == FOLDER and (whole / "config.json").exists():
        return str(whole), folder.name
    return workdir, ""
