"""Which program a run trains with, so that a resumed run goes on with the same: `input.json` in the run folder."""

import dataclasses
import json

import jax
from etils import epath

from media.files import read_json, write_atomically


@dataclasses.dataclass(frozen=True)
class Input:
    """What `auto` was decided to be.

    Attributes:
      streams: where each stream lies: "device", "host" or "off".
      steps_per_dispatch: the most steps of one dispatch; None if not decided yet.
    """

    streams: dict[str, str]
    steps_per_dispatch: int | None


def read(workdir: epath.Path) -> Input:
    """What was decided when the run in `workdir` began; empty for a new run, or one of an older version."""
    path = workdir / "input.json"
    if not path.exists():
        return Input({}, None)
    found = read_json(path, "remove it: the run then decides anew, and may differ in the last bit")
    return Input(found.get("streams", {}), found.get("steps_per_dispatch"))


def write(workdir: epath.Path, decided: Input) -> None:
    """Records what was decided."""
    if jax.process_index() == 0:
        write_atomically(workdir / "input.json", json.dumps(dataclasses.asdict(decided), indent=2) + "\n")
