"""The networks of an end-to-end run as runs in their own folders, `parts/{fusion,visual,audio}`.

`predict`, `export` and `extract` open these folders like any fusion run and its encoders, without the runs that the
training started from.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from avemo import configuration
from avemo.runs import archive, result_file, weights
from media.errors import UserError
from media.files import write_atomically

FOLDER = "parts"


@dataclasses.dataclass(frozen=True)
class Subrun:
    """One network of an end-to-end run.

    Attributes:
      config: the config of a run of this network.
      variables: `{"params": ..., **model state}`, on the host.
      class_names: names of the classes of its logits.
      feature: name of the encoder output that the fusion reads; empty for the fusion.
    """

    config: ConfigDict
    variables: dict[str, Any]
    class_names: tuple[str, ...] = ()
    feature: str = ""


def write(
    workdir: str | epath.Path, subruns: Mapping[str, Subrun], seen: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    """Writes `parts/{fusion,visual,audio}` into a run folder.

    Args:
      workdir: the run folder.
      subruns: the networks by name; all but `fusion` are its encoders.
      seen: how the training videos were prepared: `faces` and `fps` of `encoders.json`.
      result: the run's result; its scores are the fusion's.
    """
    encoders = {
        name: {"workdir": name, "fingerprint": weights.fingerprint(one.variables), "output": one.feature}
        for name, one in subruns.items()
        if name != "fusion"
    }
    step = result["evaluated_step"]
    for name, one in subruns.items():
        folder = epath.Path(workdir) / FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        metrics = result["metrics"] if name == "fusion" else {}
        about = result_file.make(one.config.task, step, step, metrics, one.variables["params"], one.class_names)
        (folder / weights.FILENAME).write_bytes(weights.pack(step, one.variables))
        result_file.write(folder, about)
        if name == "fusion":
            (folder / archive.ENCODERS).write_text(json.dumps({**encoders, **seen}, indent=2))
        # The config comes last, because it makes the folder a run.
        write_atomically(folder / "config.json", json.dumps(configuration.to_dict(one.config), indent=2))


def fusion_of(workdir: str) -> str:
    """Returns the folder to open for predictions: an end-to-end run's fusion subrun, or `workdir` itself.

    Raises:
      UserError: the end-to-end run has not written its subruns yet.
    """
    path = epath.Path(workdir) / "config.json"
    if not path.exists() or configuration.from_json(path).get("task") != "end_to_end":
        return workdir
    folder = epath.Path(workdir) / FOLDER / "fusion"
    if not (folder / "config.json").exists():
        raise UserError(f"{workdir} is not finished, so it has no {FOLDER}/fusion yet: let `launch.py train` end it.")
    return str(folder)


def whole_of(workdir: str) -> tuple[str, str]:
    """Returns the end-to-end run that a subrun belongs to, and the subrun's name; `(workdir, "")` for other folders."""
    folder = epath.Path(workdir)
    whole = folder.parent.parent
    if folder.parent.name == FOLDER and (whole / "config.json").exists():
        return str(whole), folder.name
    return workdir, ""
