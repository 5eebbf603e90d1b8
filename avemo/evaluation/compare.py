"""Compares runs: scores with intervals over recordings, and paired differences from the first run."""

import csv
import dataclasses
import json
import logging
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from etils import epath

from avemo.evaluation import estimates
from avemo.evaluation.estimates import Estimate
from avemo.metrics import significance
from avemo.runs import installed, reader
from media.errors import UserError
from media.files import publish

logger = logging.getLogger(__name__)
RESAMPLES = 2000
HEAD = ("metric", "run", "", "95 %", "vs first run", "95 %", "p (Holm)")


@dataclasses.dataclass(frozen=True)
class RunScore:
    """One run's score in one metric.

    Attributes:
      run: its name.
      metric: for example "ccc_arousal", "ccc_recording_mean" or "uar".
      value, low, high: the score and its 95 % interval over resampled recordings (NaN if there are too few).
      difference, difference_low, difference_high: from the first run, paired by recording. None for the first run, and
        if the two were not scored on the same recordings.
      p: p-value of a paired permutation test, Holm-corrected over the runs of the metric; None as above.
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


def compare(folders: Sequence[str | epath.Path], split: str | None = None) -> tuple[str, list[RunScore]]:
    """Compares runs on their saved predictions.

    Args:
      folders: two or more run folders; the others are compared with the first.
      split: by default "test" if all runs were scored on it, else "dev".

    Returns:
      The split, and the scores by metric and run, for the metrics that all runs have.

    Raises:
      UserError: there are fewer than two runs, or they have no split or no metric in common.
    """
    return _compare(_load(folders), split)


def _load(folders: Sequence[str | epath.Path]) -> list[reader.Run]:
    if len(folders) < 2:
        raise UserError("compare takes two or more run folders.")
    return [reader.load(installed.find(str(folder))) for folder in folders]


def _compare(runs: Sequence[reader.Run], split: str | None) -> tuple[str, list[RunScore]]:
    split = _common_split(runs, split)
    found = [_estimates(run, split) for run in runs]
    metrics = [name for name in found[0] if all(name in scores for scores in found)]
    if not metrics:
        different = f"the runs have no metric in common on {split!r}: they predict different things."
        raise UserError(" ".join(unscored(runs, split)) or different)
    names = _names(runs)
    return split, [
        score for metric in metrics for score in _compare_metric(metric, names, [scores[metric] for scores in found])
    ]


def _common_split(runs: Sequence[reader.Run], split: str | None) -> str:
    """The given split if all runs have predictions of it; by default test, dev or the first one that all share."""
    if split is None:
        scored = set.intersection(*(set(run.splits) - set(run.unscored) for run in runs))
        split = next((name for name in ("test", "dev", *sorted(scored)) if name in scored), None)
    if split is None or not all(split in run.splits for run in runs):
        have = "; ".join(f"{run.folder}: {', '.join(run.splits) or 'none'}" for run in runs)
        message = f"the runs have no predictions of {split or 'any one split'} in common ({have})."
        raise UserError(" ".join([message, *unscored(runs, split)]))
    return split


def unscored(runs: Sequence[reader.Run], split: str | None = None) -> list[str]:
    """A sentence for each split (or for the given one) that a run could not be scored on."""
    return [
        f"{name} was not scored on {missing}: {reason}"
        for name, run in zip(_names(runs), runs, strict=True)
        for missing, reason in run.unscored.items()
        if split in (None, missing)
    ]


def _estimates(run: reader.Run, split: str) -> dict[str, Estimate]:
    out = {}
    for (convention, dimension), estimate in estimates.of_traces(run.traces(split)).items():
        out["ccc_" + ("recording_" if convention == "per_recording" else "") + dimension] = estimate
    labelled = run.classes(split)
    if labelled is not None:
        out |= {name: estimate for (_, name), estimate in estimates.of_classes(*labelled).items()}
    return out


def _names(runs: Sequence[reader.Run]) -> list[str]:
    """The folders' names, or their paths if a name repeats."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def _compare_metric(metric: str, names: Sequence[str], found: Sequence[Estimate]) -> list[RunScore]:
    first, *others = found
    pairs = [_paired(other, first) for other in others]
    corrected = iter(significance.holm([pair.p for pair in pairs if pair]).tolist())
    scores = []
    for name, e, pair in zip(names, found, (None, *pairs), strict=True):
        score = RunScore(name, metric, e.value, e.low, e.high)
        if pair:
            score = dataclasses.replace(
                score,
                difference=pair.difference,
                difference_low=pair.low,
                difference_high=pair.high,
                p=next(corrected),
            )
        scores.append(score)
    return scores


def _paired(other: Estimate, first: Estimate) -> significance.Comparison | None:
    """The difference from the first run; None unless both were scored on the same recordings, and enough of them."""
    if other.score is None or first.score is None:
        return None
    if other.over != first.over or len(first.over) < estimates.MIN_GROUPS:
        return None
    return significance.compare(other.score, first.score, resamples=RESAMPLES)


def markdown(split: str, scores: Sequence[RunScore]) -> str:
    """The comparison as a Markdown table: one line per metric and run, 95 % intervals in brackets."""
    table = [(*HEAD[:2], split, *HEAD[3:]), *(_cells(score) for score in scores)]
    widths = [max(len(line[i]) for line in table) for i in range(len(HEAD))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in table]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def _cells(score: RunScore) -> tuple[str, ...]:
    def number(value: float) -> str:
        return f"{value:.3f}" if math.isfinite(value) else "–"  # noqa: RUF001

    interval = f"[{number(score.low)}, {number(score.high)}]" if math.isfinite(score.low) else ""
    difference = "" if score.difference is None else f"{score.difference:+.3f}"
    paired = "" if score.difference is None else f"[{score.difference_low:+.3f}, {score.difference_high:+.3f}]"
    p = "" if score.p is None else f"{score.p:.3f}"
    return score.metric, score.run, number(score.value), interval, difference, paired, p


def run(folders: Sequence[str], output: str | None = None, split: str | None = None) -> dict[str, Any]:
    """`launch.py compare`: logs the table, and writes it to `output` as Markdown, CSV and JSON.

    Raises:
      UserError: as for `compare`, or `output` cannot be written.
    """
    runs = _load(folders)
    split, scores = _compare(runs, split)
    lines = unscored(runs)
    text = "\n".join((markdown(split, scores), *(f"\n{line}" for line in lines)))
    logger.info("%s", text)
    records = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in dataclasses.asdict(score).items()}
        for score in scores
    ]
    result = {"split": split, "rows": records, **({"unscored": lines} if lines else {})}
    if output:
        with publish(output) as folder:
            _write(folder, text, result)
    return result


def _write(folder: pathlib.Path, text: str, result: dict[str, Any]) -> None:
    (folder / "compare.md").write_text(text + "\n")
    (folder / "compare.json").write_text(json.dumps(result, indent=2) + "\n")
    with (folder / "compare.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, [field.name for field in dataclasses.fields(RunScore)], lineterminator="\n")
        out.writeheader()
        out.writerows(result["rows"])
