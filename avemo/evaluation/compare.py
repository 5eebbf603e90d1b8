"""Several runs side by side: scores with intervals over recordings, and paired differences from the first run."""

import csv
import dataclasses
import json
import logging
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from etils import epath

from avemo.metrics import significance
from avemo.report import scores
from avemo.runs import reader
from media.errors import UserError
from media.files import publish

logger = logging.getLogger(__name__)
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Row:
    """One run's score in one metric.

    Attributes:
      run: its name; metric: such as "ccc_arousal", "ccc_recording_mean", "uar".
      value, low, high: the score and its 95 % interval over resampled recordings (NaN where those are too few).
      difference, difference_low, difference_high: from the first run, paired by recording; None for the first run and
        where the two were not scored on the same recordings.
      p: of a paired permutation test, Holm-corrected over the runs of that metric; None as above.
    """

    run: str
    metric: str
    value: float
    low: float
    high: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None


def compare(folders: Sequence[str | epath.Path], split: str | None = None) -> tuple[str, list[Row]]:
    """Compares runs on the predictions that they saved.

    Args:
      folders: two or more run folders; the first is what the others are compared with.
      split: by default "test" where all runs have it, else "dev".

    Returns:
      The split, and one row a metric and run; only metrics that all runs have.

    Raises:
      UserError: fewer than two runs, no split in common, or no metric in common.
    """
    runs = [reader.load(folder) for folder in folders]
    if len(runs) < 2:
        raise UserError("compare takes two or more run folders.")
    common = set.intersection(*(set(run.splits) for run in runs))
    if split is None:
        split = next((name for name in ("test", "dev", *sorted(common)) if name in common), None)
    if split is None or split not in common:
        have = "; ".join(f"{run.folder}: {', '.join(run.splits) or 'none'}" for run in runs)
        raise UserError(f"the runs have no predictions of {split or 'any one split'} in common ({have}).")
    found = [_estimates(run, split) for run in runs]
    metrics = [name for name in found[0] if all(name in estimates for estimates in found)]
    if not metrics:
        raise UserError(f"the runs have no metric in common on {split!r}: they predict different things.")
    names = _names(runs)
    rows = []
    for metric in metrics:
        rows += _metric(metric, names, [estimates[metric] for estimates in found])
    return split, rows


def _estimates(run: reader.Run, split: str) -> dict[str, scores.Estimate]:
    out = {}
    for (convention, dimension), estimate in scores.traces(run.traces(split)).items():
        out["ccc_" + ("recording_" if convention == "per_recording" else "") + dimension] = estimate
    labelled = run.classes(split)
    if labelled is not None:
        out |= {name: estimate for (_, name), estimate in scores.classes(*labelled).items()}
    return out


def _names(runs: Sequence[reader.Run]) -> list[str]:
    """The folders' names, or their paths where names repeat."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def _metric(metric: str, names: Sequence[str], estimates: Sequence[scores.Estimate]) -> list[Row]:
    first = estimates[0]
    pairs = {
        i: significance.compare(e.score, first.score, resamples=RESAMPLES)
        for i, e in enumerate(estimates)
        if i and e.over == first.over and len(e.over) >= scores.MIN_GROUPS and e.score is not None
    }
    corrected = dict(zip(pairs, significance.holm([pair.p for pair in pairs.values()]), strict=True)) if pairs else {}
    rows = []
    for i, (name, e) in enumerate(zip(names, estimates, strict=True)):
        row = Row(name, metric, e.value, e.low, e.high)
        if i in pairs:
            pair = pairs[i]
            row = Row(
                name, metric, e.value, e.low, e.high, pair.difference, pair.low, pair.high, float(corrected[i])
            )  # fmt: skip
        rows.append(row)
    return rows


def markdown(split: str, rows: Sequence[Row]) -> str:
    """The comparison as a table: a line a run and metric, 95 % intervals in brackets."""
    show = lambda v: "–" if v is None or not math.isfinite(v) else f"{v:.3f}"  # noqa: E731, RUF001
    table = [("metric", "run", split, "95 %", "from the first", "95 %", "p (Holm)")]
    for row in rows:
        interval = f"[{show(row.low)}, {show(row.high)}]" if math.isfinite(row.low) else ""
        difference = "" if row.difference is None else f"{row.difference:+.3f}"
        paired = "" if row.difference is None else f"[{row.difference_low:+.3f}, {row.difference_high:+.3f}]"
        p = "" if row.p is None else f"{row.p:.3f}"
        table.append((row.metric, row.run, show(row.value), interval, difference, paired, p))
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in table]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def run(folders: Sequence[str], output: str | None = None, split: str | None = None) -> dict[str, Any]:
    """`launch.py compare`: logs the table, and writes it to `output` as Markdown, CSV and JSON.

    Raises:
      UserError: as `compare`; `output` cannot be written.
    """
    split, rows = compare(folders, split)
    text = markdown(split, rows)
    logger.info("%s", text)
    records = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in dataclasses.asdict(row).items()}
        for row in rows
    ]
    result = {"split": split, "rows": records}
    if output:
        with publish(output) as folder:
            _write(folder, text, result)
    return result


def _write(folder: pathlib.Path, text: str, result: dict[str, Any]) -> None:
    (folder / "compare.md").write_text(text + "\n")
    (folder / "compare.json").write_text(json.dumps(result, indent=2) + "\n")
    with (folder / "compare.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, [field.name for field in dataclasses.fields(Row)], lineterminator="\n")
        out.writeheader()
        out.writerows(result["rows"])
