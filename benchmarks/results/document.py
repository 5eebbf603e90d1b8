"""Writes docs/results.md and its figures from the rows' JSON alone."""

import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.results import prose
from benchmarks.results.experiment import Experiment
from benchmarks.results.steps import Place
from media.errors import UserError
from media.files import write_atomically

_INK, _MUTED, _ACCENT = "#1b1f24", "#8b949e", "#0b63b5"
_STYLE: Any = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": _MUTED}


def write(place: Place, rows: Sequence[Experiment], output: pathlib.Path) -> None:
    """Writes the document; rows that have not been made are listed as missing."""
    made = _made(place, rows)
    parts = [prose.HEAD, _summary(rows, made), *_sections(rows, made, output.parent / "images")]
    parts += [prose.FAIRNESS, prose.PAPER, _commands(rows, made)]
    write_atomically(output, "\n\n".join(part.strip() for part in parts) + "\n")


def write_page(place: Place, rows: Sequence[Experiment], output: pathlib.Path) -> None:
    """Writes the document that some rows have to themselves."""
    made = _made(place, rows)
    head = prose.PAGES[output.name]
    parts = [head, _summary(rows, made), *_sections(rows, made, output.parent / "images"), _commands(rows, made)]
    write_atomically(output, "\n\n".join(part.strip() for part in parts) + "\n")


def _made(place: Place, rows: Sequence[Experiment]) -> dict[str, dict[str, Any]]:
    """The values of the rows that have been made, by name."""
    paths = {row.name: place.work / "rows" / f"{row.name}.json" for row in rows}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def _sections(rows: Sequence[Experiment], made: dict[str, dict[str, Any]], images: pathlib.Path) -> list[str]:
    """The section of each row that has been made; its figure goes into `images`."""
    parts = []
    for row in rows:
        if row.name not in made:
            continue
        value = made[row.name]
        figure = ""
        if len(value["scores"]) > 1:
            images.mkdir(parents=True, exist_ok=True)
            (images / f"results_{row.name}.png").write_bytes(forest(value))
            figure = f"![{row.title}: scores and intervals](images/results_{row.name}.png)"
        parts.append("\n\n".join(part for part in (f"## {row.title}", row.protocol + ".", _row(value), figure) if part))
        if row.name in prose.NOTES:
            try:
                parts.append(prose.NOTES[row.name].format(**value))
            except KeyError as error:
                raise UserError(f"row {row.name} was made by another version (no {error}): make it again.") from error
    return parts


def _interval(score: dict[str, Any], signed: bool = False) -> str:
    form = "{:+.3f}" if signed else "{:.3f}"
    if "low" not in score:
        return form.format(score["value"])
    return f"{form.format(score['value'])} [{form.format(score['low'])}, {form.format(score['high'])}]"


def _minutes(value: dict[str, Any]) -> str:
    return f"{sum(step['seconds'] for step in value['steps']) / 60:.0f}"


def _summary(rows: Sequence[Experiment], made: dict[str, dict[str, Any]]) -> str:
    lines = ["| what | ours | best of the others | targets | minutes |", "|---|---|---|---|---|"]
    for row in rows:
        if row.name not in made:
            lines.append(f"| {row.title} | not made yet | | | |")
            continue
        value = made[row.name]
        first = value["scores"][0]
        others = [score for score in value["scores"][1:] if not score["ours"]]
        best = max(others, key=lambda score: score["value"]) if others else None
        beside = f"{best['system']}: {best['value']:.3f}" if best else ""
        marks = "; ".join(f"{'✓' if check['met'] else '✗'} {check['what']}" for check in value["checks"])
        lines.append(f"| {row.title} | {_interval(first)} | {beside} | {marks} | {_minutes(value)} |")
    return "\n".join(lines)


def _row(value: dict[str, Any]) -> str:
    """One row's tables: scores, differences, recall and calibration."""
    seeds = f", mean of {value['seeds']} seeds" if value.get("seeds", 1) > 1 else ""
    extra = sorted({key for score in value["scores"] for key in score} & {"uar", *prose.COLUMNS})
    named = [prose.COLUMNS.get(key, key) for key in extra]
    lines = [
        f"| system | {value['metric']}, 95 % over {value['unit']}s{seeds} |{''.join(f' {n} |' for n in named)}",
        "|---|---|" + "---|" * len(extra),
    ]
    for score in value["scores"]:
        cells = "".join(f" {score[key]:.3f} |" if key in score else " |" for key in extra)
        lines.append(f"| {score['system']} | {_interval(score)} |{cells}")
    parts = ["\n".join(lines)]
    if value.get("differences"):
        holm = "p_holm" in value["differences"][0]
        lines = [f"| difference | {value['metric']}, paired 95 % | p{' (Holm)' if holm else ''} |", "|---|---|---|"]
        for one in value["differences"]:
            p = one["p_holm"] if holm else one["p"]
            lines.append(f"| {one['first']} less {one['second']} | {_interval(one, signed=True)} | {p:.4f} |")
        parts.append("\n".join(lines))
    if value.get("recall"):
        numbers = value.get("numbers", {})
        names = list(value["recall"])
        head = " | ".join(f"{name} ({numbers[name]})" if name in numbers else name for name in names)
        cells = " | ".join(f"{value['recall'][name]:.2f}" for name in names)
        parts.append(f"Recall by class:\n\n| {head} |\n|{'---|' * len(names)}\n| {cells} |")
    if "ece" in value:
        parts.append(f"Expected calibration error (15 bins): {value['ece']:.3f}.")
    if value.get("per_fold"):
        folds = ", ".join(
            f"speakers {f['speakers']}: {f['accuracy']:.3f} ({f['minutes']} min)" for f in value["per_fold"]
        )
        parts.append(f"By fold, with minutes of training: {folds}.")
    return "\n\n".join(parts)


def _commands(rows: Sequence[Experiment], made: dict[str, dict[str, Any]]) -> str:
    """Every step once, in order, with its seconds."""
    seen: dict[str, str] = {}
    for row in rows:
        for step in made.get(row.name, {}).get("steps", ()):
            seen.setdefault(step["name"], f"{step['command']}    # {step['seconds']:.0f} s")
    each = "\n".join(f"    python -m benchmarks.results {row.name}" for row in rows)
    lines = "\n".join(f"    {line}" for line in seen.values())
    return f"## Commands\n\nEach row by itself, with everything it needs:\n\n{each}\n\nTheir commands:\n\n{lines}"


def forest(value: dict[str, Any]) -> bytes:
    """A PNG of the scores with their intervals, in the row's order from top to bottom."""
    scores = value["scores"][::-1]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 0.7 + (0.26 if len(scores) < 40 else 0.15) * len(scores)), layout="constrained")
        axes = figure.subplots()
        for y, score in enumerate(scores):
            colour = _ACCENT if score["ours"] else _INK
            if "low" in score:
                axes.plot([score["low"], score["high"]], [y, y], color=colour, lw=1.2, solid_capstyle="butt")
            axes.plot(score["value"], y, "s", ms=4, color=colour)
        axes.set_yticks(range(len(scores)), [score["system"] for score in scores])
        axes.set_ylim(-0.7, len(scores) - 0.3)
        axes.set_xlabel(f"{value['metric']}, bar: 95 % over {value['unit']}s; blue: ours")
        axes.grid(axis="x", color="#e6e8eb", lw=0.6)
        axes.set_axisbelow(True)
        data = io.BytesIO()
        # Without the software version, the same rows give the same bytes.
        figure.savefig(data, format="png", dpi=200, metadata={"Software": None})
    return data.getvalue()
