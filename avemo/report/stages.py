"""The section of stages: every command in order, and how each training run went."""

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
    "audiovisual": "Fusion and time",
    "end_to_end": "Fusion with its encoders",
}
MAX_LINES = 6


def section(runs: Sequence[Run], notes: Notes) -> str:
    """The table of commands, then one card a run."""
    cards = "".join(_card(run, _command(run, notes)) for run in runs)
    return tag("section", f"<h2>Stages</h2>{_overview(runs, notes)}{cards}", id="stages")


def _overview(runs: Sequence[Run], notes: Notes) -> str:
    if not notes.stages:
        return ""
    by_name = {run.name: run for run in runs}
    rows = []
    for stage in notes.stages:
        run = by_name.get(str(stage["name"]))
        name = escape(stage["name"])
        rows.append(
            [
                f'<a href="#run-{name}">{name}</a>' if run else name,
                markup.duration(stage.get("seconds")),
                "reused" if stage.get("skipped") else "run",
                _code(stage.get("command")),
            ]
        )
    total = sum(s["seconds"] for s in notes.stages if isinstance(s.get("seconds"), int | float))
    return "<p>Each stage is an ordinary command and can be run alone, from the project's folder.</p>" + markup.table(
        f"Stages in order, {markup.duration(total)} together", ["stage", "time", "this call", "command"], rows,
        class_="commands",
    )  # fmt: skip


def _code(command: Any) -> str:
    if isinstance(command, list | tuple):
        command = " ".join(str(part) for part in command)
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
    kind = {"audio": ", audio only", "visual": ", visual only", "both": ""}.get(run.modality or "both", "")
    parts = [
        f"<h3>{escape(title)}{kind} <small>{escape(run.name)}</small></h3>",
        markup.definitions(_facts(run)),
        f'<div class="charts">{_curves(run)}</div>',
        _metrics(run),
    ]
    if command:
        parts.append(f'<p class="alone"><span>Alone:</span> {command}</p>')
    return tag("article", "".join(parts), class_="card", id=f"run-{run.name}")


def _facts(run: Run) -> list[tuple[str, str]]:
    planned = run.config.get("steps")
    done = run.result.get("step", run.last_step)
    steps = markup.number(done) if done == planned or not planned else f"{markup.number(done)} of {planned:,}"
    model = run.config.get("model") if isinstance(run.config.get("model"), dict) else {}
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


def history(run: Run, split: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Logged values of a split by name: steps and values `[N]`, null as NaN; names without any number are left out."""
    lines = [line for line in run.history if line.get("split") == split]
    names = dict.fromkeys(k for line in lines for k in line if k not in ("step", "split", "wall_time"))
    out = {}
    for name in names:
        rows = [(line.get("step"), line[name]) for line in lines if name in line]
        x = np.array([float(step) if _is_number(step) else math.nan for step, _ in rows])
        y = np.array([float(value) if _is_number(value) else math.nan for _, value in rows])
        if np.isfinite(x * y).any():
            out[name] = x, y
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _series(values: dict[str, tuple[np.ndarray, np.ndarray]], names: Sequence[str], dots: bool) -> list[Series]:
    return [Series(markup.metric_label(n), *values[n], f"s-{i}", dots) for i, n in enumerate(names)]


def _curves(run: Run) -> str:
    train = history(run, "train")
    losses = ["loss", *(n for n in train if n.endswith("_loss"))]
    losses = [n for n in losses if n in train][:MAX_LINES]
    out = []
    if losses:
        # A sum with one part is the part.
        losses = losses[:1] if len(losses) == 2 else losses
        lines = _series(train, losses, dots=False)
        low = min(0.0, *(float(np.nanmin(s.y)) for s in lines))
        out.append(
            charts.plot(
                lines,
                title="Training loss",
                x_label="step",
                y_label="loss",
                x_range=_steps(run),
                y_range=charts.limits(lines, low=low),
            )
        )
    for split in ("dev", *sorted({str(line.get("split")) for line in run.history} - {"train", "timing", "dev"})):
        values = history(run, split)
        names = headline_metrics(list(values))
        if names:
            lines = _series(values, names, dots=True)
            low = min(0.0, *(float(np.nanmin(s.y)) for s in lines))
            out.append(
                charts.plot(
                    lines, title=f"Metrics on {escape(split)}", x_label="step", y_label="score", x_range=_steps(run),
                    y_range=(charts.limits(lines, low=low)[0] if low < 0 else 0.0, 1.0),
                )
            )  # fmt: skip
    return "".join(out)


def headline_metrics(names: Sequence[str]) -> list[str]:
    """Scores that share the axis 0…1, most telling first: the concatenated CCCs, or accuracy and its kin."""
    traces = [n for n in names if n.startswith("ccc")]
    plain = [n for n in traces if "recording" not in n]
    chosen = plain or traces
    if not chosen:
        wanted = ("accuracy", "uar", "macro_f1", "triplet_accuracy", "teacher_accuracy", "agreement")
        chosen = [n for n in wanted if n in names]
    return sorted(chosen, key=markup.metric_rank)[:MAX_LINES]


def _steps(run: Run) -> tuple[float, float]:
    return 0.0, float(max(run.last_step, 1))


def _metrics(run: Run) -> str:
    found = run.result.get("metrics")
    found = {s: v for s, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}
    splits = sorted(found, key=lambda s: ({"dev": 0, "test": 1}.get(s, 2), s))
    names = {n for values in found.values() for n, v in values.items() if v is None or _is_number(v)}
    if not names:
        return ""
    rows = [
        [escape(markup.metric_label(n)), *(markup.metric(n, found[s].get(n)) for s in splits)]
        for n in sorted(names, key=markup.metric_rank)
    ]
    text = markup.table(f"Scores of {escape(run.name)}", ["metric", *map(escape, splits)], rows, class_="numbers")
    return markup.details("All scores", text)
