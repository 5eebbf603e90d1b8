"""What `demo.json` and the corpus say about a folder of runs."""

import dataclasses
from typing import Any

import numpy as np
from etils import epath

from avemo.metrics import DIMENSIONS
from avemo.runs import reader


@dataclasses.dataclass(frozen=True)
class Notes:
    """Notes on a whole folder of runs.

    Attributes:
      corpus: "synthetic", "real", or "" if nothing says.
      source: folder of the real corpora, or "".
      seed: the seed, or None.
      stages: one dict per stage, `{"name", "command", "seconds", "skipped"}`, in the order they ran.
      ceiling: `{reference: {"valence": CCC, "arousal": CCC}}`, the best CCC that the raters' noise allows.
    """

    corpus: str
    source: str
    seed: Any
    stages: list[dict[str, Any]]
    ceiling: dict[str, dict[str, float]]

    @property
    def seconds(self) -> float:
        """Time of all stages together."""
        return sum(s["seconds"] for s in self.stages if isinstance(s.get("seconds"), int | float))


def read_notes(workdir: str | epath.Path) -> Notes:
    """Reads `demo.json` (stages as a list or by name) and `corpus/ceiling.json`; both may be missing."""
    workdir = epath.Path(workdir)
    demo = reader.read_json(workdir / "demo.json")
    stages = demo.get("stages") or []
    if isinstance(stages, dict):
        stages = [{"name": name, **stage} for name, stage in stages.items() if isinstance(stage, dict)]
    stages = [stage for stage in stages if isinstance(stage, dict) and "name" in stage]
    ceiling = demo.get("ceiling") or reader.read_json(workdir / "corpus" / "ceiling.json")
    return Notes(
        str(demo.get("corpus") or ""), str(demo.get("source") or ""), demo.get("seed"), stages, _ceilings(ceiling)
    )


def _ceilings(value: Any) -> dict[str, dict[str, float]]:
    """Turns `{"valence": x}` or `{"ccc": {"valence": {reference: x}}}` into `{reference: {"valence": x}}`."""
    value = value.get("ccc", value) if isinstance(value, dict) else {}
    out: dict[str, dict[str, float]] = {}
    for dimension in DIMENSIONS:
        given = value.get(dimension)
        given = given if isinstance(given, dict) else {"gold_vs_latent": given}
        for reference, x in given.items():
            if isinstance(x, int | float) and np.isfinite(x):
                out.setdefault(str(reference), {})[dimension] = float(x)
    return out
