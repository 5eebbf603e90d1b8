"""A sweep's rows as table.md, table.tex, table.csv, figures and one HTML page, written to go into a paper."""

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Sequence

from etils import epath

from avemo.metrics import significance
from avemo.sweep import figures, page, plan
from avemo.sweep.summary import Interval, Row
from media.files import write_atomically

Column = tuple[str, Callable[[Row], str]]
MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"


def write(sweep: plan.Sweep, rows: Sequence[Row], folder: epath.Path, spec: str) -> list[epath.Path]:
    """Writes the tables and figures into `folder` and returns their paths.

    Args:
      sweep: what was compared; rows: its rows.
      folder: where to.
      spec: the sweep's config and overrides as they stand on the command line.
    """
    pictures = figures.write(rows, folder)
    outputs = {
        "table.md": markdown(sweep, rows, spec),
        "table.tex": latex(sweep, rows),
        "table.csv": comma_separated(rows),
        "ablation.html": page.render(sweep.title, columns(rows), rows, notes(sweep, rows), pictures, spec),
    }
    for name, text in outputs.items():
        write_atomically(folder / name, text)
    return [*(folder / name for name in outputs), *pictures]


def number(value: float | None, digits: int = 3) -> str:
    """A number with a true minus sign; an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.{digits}f}".replace("-", MINUS)


def count(value: float | None) -> str:
    """A count with its unit: 1.2M, 34k."""
    if value is None:
        return NONE
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _spread(interval: Interval | None) -> str:
    if interval is None:
        return NONE
    return f"{number(interval.value)} ± {number(interval.deviation)}"


def _range(low: float, high: float) -> str:
    return f"[{number(low)}, {number(high)}]"


def _difference(row: Row) -> str:
    if row.reference:
        return "reference"
    c = row.comparison
    return NONE if c is None else f"{number(c.difference)} {_range(c.low, c.high)}"


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else number(value)


def columns(rows: Sequence[Row]) -> list[Column]:
    """The columns of the printed tables; those that no row has are left out."""
    metric = next((r.metric for r in rows if r.metric), "score")
    second = "CCC, per recording" if metric == "CCC" else "accuracy"
    out: list[Column] = [
        ("setting", lambda r: r.name + (f" ({r.candidate})" if r.candidate else "")),
        ("seeds", lambda r: f"{r.seeds}/{r.wanted}"),
        ("parameters", lambda r: count(r.parameters)),
        ("FLOPs/frame", lambda r: count(r.flops)),
        ("ms/step", lambda r: NONE if r.step_seconds is None else number(1000 * r.step_seconds, 1)),
        (f"{metric}, concatenated" if metric == "CCC" else metric, lambda r: _spread(r.main)),
        ("95 % interval", lambda r: _range(r.main.low, r.main.high) if r.main else NONE),
        (second, lambda r: _spread(r.second)),
    ]
    for name, title in (("ccc_valence", "valence"), ("ccc_arousal", "arousal"), ("macro_f1", "macro F1")):
        if any(name in r.dimensions for r in rows):
            out.append((title, lambda r, name=name: number(r.dimensions.get(name))))
    out += [
        ("difference", _difference),
        ("p (Holm)", lambda r: _p(r.p_holm)),
    ]
    if any(r.audio is not None for r in rows):
        out += [("audio only", lambda r: number(r.audio)), ("visual only", lambda r: number(r.visual))]
    if any(r.processed is not None for r in rows):
        out += [
            ("post-processed", lambda r: number(r.processed)),
            ("same, per recording", lambda r: number(r.processed_second)),
            ("steps kept", lambda r: ", ".join(f"{k} {v}/{2 * r.seeds}" for k, v in r.kept.items()) or NONE),
        ]
    return out


def notes(sweep: plan.Sweep, rows: Sequence[Row]) -> list[str]:
    """What the numbers are, sentence by sentence, for the caption."""
    done = [r for r in rows if r.seeds]
    if not done:
        return ["No setting is finished yet."]
    units = len(done[0].recordings)
    smallest = significance.smallest_p(units)
    reference = next((r.name for r in rows if r.reference), "")
    compared = [r for r in rows if r.p_holm is not None]
    out = [
        f"Scores are on the {done[0].split} split ({units} recordings), of the "
        + ("checkpoint that was best on dev" if done[0].chosen else "last checkpoint, the only one that was scored")
        + (" (on the very recordings that are scored: optimistic)" if done[0].chosen and done[0].split == "dev" else "")
        + "; mean ± standard deviation over seeds.",
        "Intervals: 95 % percentile bootstrap over recordings (9,999 resamples) of the mean over seeds"
        + ("; of so few recordings it is too narrow." if units < 20 else "."),
        f"Difference from {reference}: paired bootstrap interval; p from a paired permutation test over recordings, "
        f"Holm-corrected over {len(compared)} comparisons. With {units} recordings no uncorrected p can be below "
        f"{smallest:.2g}"
        + (
            f", no corrected one below {min(1.0, len(compared) * significance.smallest_p(units)):.2g}."
            if compared
            else "."
        ),
    ]
    if done[0].metric == "CCC":
        out.append(
            "CCC = 2·cov / (var + var + (difference of means)²), all moments biased (1/n): over the concatenation of "
            "all recordings, and as the mean of the recordings' own; both averaged over valence and arousal."
        )
    if any(r.audio is not None for r in rows):
        out.append("Audio only, visual only: the same fused checkpoints with the other modality masked throughout.")
    if any(r.processed is not None for r in rows):
        fitted = " (the very split that is scored: optimistic)" if done[0].split == "dev" else " and applied unchanged"
        out.append(
            "Post-processed: median filter, centring, scaling about the mean, time shift, each fitted on dev"
            f"{fitted}, each kept only if the dev CCC rose; steps kept are counted over seeds and dimensions."
        )
    if any(r.flops for r in rows):
        out.append(
            "FLOPs: matrix products and convolutions of the forward pass, a frame; ms/step: one seed's "
            "share, on a machine that may have trained several settings at once."
        )
    return out + ([sweep.note] if sweep.note else [])


def markdown(sweep: plan.Sweep, rows: Sequence[Row], spec: str) -> str:
    """GitHub-flavoured Markdown: the table, what it is, and the command of every row."""
    shown = columns(rows)
    lines = [f"# {sweep.title}", "", " | ".join(("", *(c[0] for c in shown), "")).strip()]
    lines.append("|" + "|".join(":--" if i == 0 else "--:" for i in range(len(shown))) + "|")
    for row in rows:
        cells = [render(row) for _, render in shown]
        if row.folders:
            cells[0] = f"[{cells[0]}]({row.folders[0]})"
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    lines += ["", *(f"- {note}" for note in notes(sweep, rows)), ""]
    lines += [f"- **{row.name}** failed: {row.error}" for row in rows if row.error]
    lines += ["", "## Made by", "", "```", f"python launch.py sweep --config={spec} --workdir=DIR", "```", ""]
    lines += ["Each row alone (its first seed):", "", "```", *(row.command for row in rows), "```"]
    return "\n".join(lines) + "\n"


def latex(sweep: plan.Sweep, rows: Sequence[Row]) -> str:
    """A `table` for `\\input`; needs the package booktabs."""
    shown = [c for c in columns(rows) if c[0] not in ("seeds", "ms/step", "steps kept", "same, per recording")]
    body = [" & ".join(_tex(render(row)) for _, render in shown) + r" \\" for row in rows]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table*}",
            r"\centering\small",
            r"\caption{" + _tex(f"{sweep.title}. " + " ".join(notes(sweep, rows))) + "}",
            r"\begin{tabular}{l" + "r" * (len(shown) - 1) + "}",
            r"\toprule",
            " & ".join(_tex(title) for title, _ in shown) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
            "",
        ]
    )


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    MINUS: r"$-$",
    NONE: "--",
    "·": r"$\cdot$",
    "²": r"$^2$",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text)


def comma_separated(rows: Sequence[Row]) -> str:
    """Every number in full, one row a setting, for other programs."""
    table = [_record(row) for row in rows]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def _record(row: Row) -> dict[str, object]:
    record: dict[str, object] = {
        "setting": row.name,
        "candidate": row.candidate,
        "seeds": row.seeds,
        "wanted": row.wanted,
        "error": row.error,
        "split": row.split,
        "metric": row.metric,
    }
    for name, interval in (("main", row.main), ("second", row.second)):
        values = dataclasses.astuple(interval) if interval else (None,) * 4
        record |= dict(zip((name, f"{name}_sd", f"{name}_low", f"{name}_high"), values, strict=True))
    record |= {name: row.dimensions.get(name) for name in ("ccc_valence", "ccc_arousal", "macro_f1")}
    paired = dataclasses.astuple(row.comparison) if row.comparison else (None,) * 4
    record |= dict(zip(("difference", "difference_low", "difference_high", "p"), paired, strict=True))
    return record | {
        "p_holm": row.p_holm,
        "audio_only": row.audio,
        "visual_only": row.visual,
        "postprocessed": row.processed,
        "postprocessed_second": row.processed_second,
        "steps_kept": " ".join(f"{k}:{v}" for k, v in row.kept.items()),
        "parameters": row.parameters,
        "flops_per_frame": row.flops,
        "step_seconds": row.step_seconds,
        "folders": " ".join(row.folders),
        "command": row.command,
    }
