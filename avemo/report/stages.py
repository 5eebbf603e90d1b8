"""The section on stages: every command in order, and how each training run went."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from avemo.report import charts, markup
from avemo.report.charts import Series
from avemo.report.markup import escape, tag
from avemo.report.notes import Notes
from avemo.runs.reader import Run

TITLES = {
    "teacher": "Expression teacher",
    "student": "Distilled student",
    "audio": "Audio encoder",
    "audiovisual": "Fusion and temporal model",
    "end_to_end": "Fusion with its encoders",
}
MAX_LINES = 6
History = dict[str, tuple[np.ndarray, np.ndarray]]  # steps and values by name


def section(runs: Sequence[Run], notes: Notes) -> str:
    """The table of commands, then one card per run."""
    cards = "".join(_card(run, _command(run, notes)) for run in runs)
    return tag("section", f"<h2>Stages</h2>{_overview(runs, notes)}{cards}", id="stages")


def _overview(runs: Sequence[Run], notes: Notes) -> str:
    if not notes.stages:
        return ""
    names = {run.name for run in runs}
    rows = []
    for stage in notes.stages:
        name = escape(stage["name"])
        rows.append(
            [
                f'<a href="#run-{name}">{name}</a>' if str(stage["name"]) in names else name,
                markup.duration(stage.get("seconds")),
                "reused" if stage.get("skipped") else "run",
                _code(stage.get("command")),
            ]
        )
    caption = f"Stages in order, {markup.duration(notes.seconds)} in total"
    table = markup.table(caption, ["stage", "time", "last call", "command"], rows, class_="commands")
    return f"<p>Each stage is an ordinary command that also runs alone, from the project's folder.</p>{table}"


def _code(command: Any) -> str:
    if isinstance(command, list | tuple):
        command = " ".join(str(word) for word in command)
    # Lines break between arguments, not inside one.
    words = " ".join(tag("span", escape(word)) for word in str(command or "").split())
    return tag("code", words, class_="command") if words else markup.ABSENT


def _command(run: Run, notes: Notes) -> str:
    for stage in notes.stages:
        if stage["name"] == run.name and stage.get("command"):
            return _code(stage["command"])
    return ""


def _card(run: Run, command: str) -> str:
    title = TITLES.get(run.task, run.task)
    kind = {"audio": ", audio only", "visual": ", visual only"}.get(run.modality or "", "")
    content = [
        f"<h3>{escape(title)}{kind} <small>{escape(run.name)}</small></h3>",
        markup.definitions(_facts(run)),
        *(
            f'<p class="note">Not scored on {escape(split)}: {escape(reason)}</p>'
            for split, reason in run.unscored.items()
        ),
        f'<div class="charts">{_training_chart(run)}{_metric_charts(run)}</div>',
        _scores(run),
    ]
    if command:
        content.append(f'<p class="alone"><span>To run it alone:</span> {command}</p>')
    return tag("article", "".join(content), class_="card", id=f"run-{run.name}")


def _facts(run: Run) -> list[tuple[str, str]]:
    planned = run.config.get("steps")
    done = run.result.get("step", run.last_step)
    steps = markup.number(done) if done == planned or not planned else f"{markup.number(done)} of {planned:,}"
    model = run.config.get("model")
    model = model if isinstance(model, dict) else {}
    names = [str(model[key]) for key in ("name", "fusion", "temporal") if model.get(key)]
    rates = [r for r in (line.get("examples_per_second") for line in run.history if line.get("split") == "timing") if r]
    facts = [("network", escape(" + ".join(names)))] if names else []
    parameters = run.result.get("parameters")
    facts += [
        ("parameters", f'<span title="{markup.number(parameters)}">{markup.count(parameters)}</span>'),
        ("steps", steps if run.result else f"{steps} <em>(not finished)</em>"),
        ("scored at step", markup.number(run.result.get("evaluated_step"))),
        ("time", markup.duration(run.result.get("seconds"))),
        ("throughput", f"{float(np.median(rates)):,.0f} examples/s" if rates else markup.ABSENT),
    ]
    return facts


def history(run: Run, split: str) -> History:
    """Logged values of a split by name: steps and values `[N]`, null as NaN. A name without any number is left out."""
    lines = [line for line in run.history if line.get("split") == split]
    names = dict.fromkeys(k for line in lines for k in line if k not in ("step", "split", "wall_time"))
    out = {}
    for name in names:
        logged = [(line.get("step"), line[name]) for line in lines if name in line]
        x, y = (np.array([_number(pair[i]) for pair in logged]) for i in (0, 1))
        if np.isfinite(x * y).any():
            out[name] = x, y
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else math.nan


def _series(values: History, names: Sequence[str], dots: bool) -> list[Series]:
    return [Series(markup.metric_label(n), *values[n], f"s-{i}", dots) for i, n in enumerate(names)]


def _training_chart(run: Run) -> str:
    logged = history(run, "train")
    losses = [n for n in ("loss", *(n for n in logged if n.endswith("_loss"))) if n in logged][:MAX_LINES]
    if not losses:
        return ""
    # The total of a single term is that term.
    lines = _series(logged, losses[:1] if len(losses) == 2 else losses, dots=False)
    return charts.plot(
        lines,
        title="Training loss",
        x_label="step",
        y_label="loss",
        x_range=_steps(run),
        y_range=charts.limits(lines, low=_lowest(lines)),
    )


def _metric_charts(run: Run) -> str:
    out = []
    for split in ("dev", *sorted({str(line.get("split")) for line in run.history} - {"train", "timing", "dev"})):
        values = history(run, split)
        names = headline_metrics(list(values))
        if not names:
            continue
        lines = _series(values, names, dots=True)
        low = _lowest(lines)
        out.append(
            charts.plot(
                lines,
                title=f"Metrics on {escape(split)}",
                x_label="step",
                y_label="score",
                x_range=_steps(run),
                y_range=(charts.limits(lines, low=low)[0] if low < 0 else 0.0, 1.0),
            )
        )
    return "".join(out)


def _lowest(lines: Sequence[Series]) -> float:
    return min(0.0, *(float(np.nanmin(line.y)) for line in lines))


def headline_metrics(names: Sequence[str]) -> list[str]:
    """Scores between 0 and 1, the most informative first: the concatenated CCCs, or else accuracy, UAR and so on."""
    cccs = [n for n in names if n.startswith("ccc")]
    chosen = [n for n in cccs if "recording" not in n] or cccs
    if not chosen:
        wanted = ("accuracy", "uar", "macro_f1", "triplet_accuracy", "teacher_accuracy", "agreement")
        chosen = [n for n in wanted if n in names]
    return sorted(chosen, key=markup.metric_rank)[:MAX_LINES]


def _steps(run: Run) -> tuple[float, float]:
    return 0.0, float(max(run.last_step, 1))


def _scores(run: Run) -> str:
    names = {n for values in run.scores.values() for n, v in values.items() if v is None or _is_number(v)}
    if not names:
        return ""
    rows = [
        [escape(markup.metric_label(n)), *(markup.metric(n, values.get(n)) for values in run.scores.values())]
        for n in sorted(names, key=markup.metric_rank)
    ]
    caption = f"Scores of {escape(run.name)}"
    return markup.details(
        "All scores", markup.table(caption, ["metric", *map(escape, run.scores)], rows, class_="numbers")
    )
