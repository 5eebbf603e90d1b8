"""An experiment, which is one row of the table of results, and the loop that makes experiments.

An experiment runs its steps and then measures what they left. It writes `rows/NAME.json`; the document is made from
these files alone.
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.results.steps import Place, Step, StepRunner
from media.errors import UserError
from media.files import write_atomically

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One row of the table of results.

    Attributes:
      name: its name on the command line and in `rows/NAME.json`.
      title: its title in the document.
      protocol: data and split, in words.
      steps: returns the steps that a place needs, in order.
      measure: reads what the steps left and returns the row's JSON value (see `measures`).
      page: file name of a document of its own; "" is that of the other rows.
    """

    name: str
    title: str
    protocol: str
    steps: Callable[[Place], Sequence[Step]]
    measure: Callable[[Place], dict[str, Any]]
    page: str = ""


def make(place: Place, rows: Sequence[Experiment]) -> list[str]:
    """Makes rows: their steps, then their JSON. If a row fails, the others still run.

    Returns:
      One message per failed row.
    """
    place.work.mkdir(parents=True, exist_ok=True)
    runner, failures = StepRunner(place), []
    for row in rows:
        try:
            needed = list(row.steps(place))
            for step in needed:
                runner.run(step)
            value = row.measure(place)
        except UserError as error:
            failures.append(f"{row.name}: {error}")
            logger.error("%s", failures[-1])
            continue
        value |= {
            "row": row.name,
            "steps": [{"name": s.name, "command": place.portable(s), "seconds": _seconds(runner, s)} for s in needed],
        }
        path = place.work / "rows" / f"{row.name}.json"
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(value, indent=2, default=float) + "\n")
        logger.info("%s: written", path)
    return failures


def _seconds(runner: StepRunner, step: Step) -> float:
    """The seconds a step took. A training reports its own, which include parts that this loop did not start."""
    if step.name.startswith("runs/"):
        return runner.place.result(step.name.removeprefix("runs/"))["seconds"]
    return runner.done[step.name]["seconds"]
