"""A sweep's results as table.md, table.tex, table.csv, figures and one HTML page, ready to go into a paper."""

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Sequence

from etils import epath

from avemo.configuration import STREAMS
from avemo.sweep import captions, figures, page, plan
from avemo.sweep.summary import DIMENSIONS, Interval, SettingResult, SettingScores
from media.files import write_atomically

Column = tuple[str, Callable[[SettingResult], str]]  # heading, cell
MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"


def write(sweep: plan.Sweep, results: Sequence[SettingResult], folder: epath.Path, spec: str) -> list[epath.Path]:
    """Writes the tables and figures and returns their paths.

    Args:
      sweep: what was compared.
      results: its settings.
      folder: where to write.
      spec: the sweep's config and overrides, as on the command line.
    """
    pictures = figures.write(results, folder)
    notes = captions.notes(sweep, results)
    outputs = {
        "table.md": markdown(sweep, results, spec),
        "table.tex": latex(sweep, results),
        "table.csv": comma_separated(results),
        "ablation.html": page.render(sweep.title, columns(results), results, notes, pictures, spec),
    }
    for name, text in outputs.items():
        write_atomically(folder / name, text)
    return [*(folder / name for name in outputs), *pictures]


def number(value: float | None, digits: int = 3) -> str:
    """A number with a true minus sign; an en dash for None, NaN and infinity."""
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


def _spread(interval: Interval) -> str:
    return f"{number(interval.value)} ± {number(interval.deviation)}"


def _range(low: float, high: float) -> str:
    return f"[{number(low)}, {number(high)}]"


def _difference(result: SettingResult) -> str:
    if result.reference:
        return "reference"
    c = result.comparison
    return NONE if c is None else f"{number(c.difference)} {_range(c.low, c.high)}"


def _p(value: float | None) -> str:
    return "< 0.001" if value is not None and value < 0.001 else number(value)


def _scored(title: str, show: Callable[[SettingScores], str]) -> Column:
    """A column of a scored setting's numbers; an en dash before it is scored."""
    return title, lambda result: NONE if result.scores is None else show(result.scores)


def columns(results: Sequence[SettingResult]) -> list[Column]:
    """The columns of the printed tables, without those that every setting lacks."""
    scored = captions.scored(results)
    ccc = not scored or scored[0].metric == "CCC"
    out: list[Column] = [
        ("setting", lambda r: r.name + (f" ({r.candidate})" if r.candidate else "")),
        ("seeds", lambda r: f"{r.seeds}/{r.wanted}"),
        _scored("parameters", lambda s: count(s.parameters)),
        _scored("FLOPs/frame", lambda s: count(s.flops)),
        _scored("ms/step", lambda s: NONE if s.step_seconds is None else number(1000 * s.step_seconds, 1)),
        _scored("CCC, concatenated" if ccc else "UAR", lambda s: _spread(s.main)),
        _scored("95 % interval", lambda s: _range(s.main.low, s.main.high)),
        _scored("CCC, per recording" if ccc else "accuracy", lambda s: _spread(s.second)),
    ]
    for name, title in zip(DIMENSIONS, ("valence", "arousal", "macro F1"), strict=True):
        if any(name in s.dimensions for s in scored):
            out.append(_dimension(name, title))
    out += [("difference", _difference), ("p (Holm)", lambda r: _p(r.p_holm))]
    out += [_stream("{} only", name) for name in dict.fromkeys(name for s in scored for name in s.alone)]
    out += [_stream("without {}", name) for name in dict.fromkeys(name for s in scored for name in s.without)]
    if any(s.processed for s in scored):
        out += [
            _scored("post-processed", lambda s: number(s.processed.main) if s.processed else NONE),
            _scored("same, per recording", lambda s: number(s.processed.second) if s.processed else NONE),
            ("steps kept", _kept),
        ]
    return out


def _dimension(name: str, title: str) -> Column:
    return _scored(title, lambda s: number(s.dimensions.get(name)))


def _stream(title: str, name: str) -> Column:
    """The column of the scores of a stream alone, or without it."""

    def show(scores: SettingScores) -> str:
        return number((scores.alone if title.endswith("only") else scores.without).get(name))

    return _scored(title.format(name), show)


def _kept(result: SettingResult) -> str:
    processed = result.scores and result.scores.processed
    kept = processed.kept.items() if processed else ()
    fits = 2 * result.seeds * max(1, result.folds)
    return ", ".join(f"{name} {times}/{fits}" for name, times in kept) or NONE


def markdown(sweep: plan.Sweep, results: Sequence[SettingResult], spec: str) -> str:
    """GitHub-flavoured Markdown: the table, what it shows, and the command of every row."""
    shown = columns(results)
    lines = [f"# {sweep.title}", "", " | ".join(("", *(title for title, _ in shown), "")).strip()]
    lines.append("|" + "|".join(":--" if i == 0 else "--:" for i in range(len(shown))) + "|")
    for result in results:
        cells = [show(result) for _, show in shown]
        if result.folders:
            cells[0] = f"[{cells[0]}]({result.folders[0]})"
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    lines += ["", *(f"- {note}" for note in captions.notes(sweep, results)), ""]
    lines += [f"- **{result.name}** failed: {result.error}" for result in results if result.error]
    lines += ["", "## Command", "", "```", f"python launch.py sweep --config={spec} --workdir=DIR", "```", ""]
    lines += ["To run the first seed of a row alone:", "", "```", *(result.command for result in results), "```"]
    return "\n".join(lines) + "\n"


def latex(sweep: plan.Sweep, results: Sequence[SettingResult]) -> str:
    """A `table` for `\\input`; needs the package booktabs."""
    shown = [c for c in columns(results) if c[0] not in ("seeds", "ms/step", "steps kept", "same, per recording")]
    body = [" & ".join(_tex(show(result)) for _, show in shown) + r" \\" for result in results]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table*}",
            r"\centering\small",
            r"\caption{" + _tex(f"{sweep.title}. " + " ".join(captions.notes(sweep, results))) + "}",
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


def comma_separated(results: Sequence[SettingResult]) -> str:
    """Every number in full, one line per setting, for other programs."""
    scored = captions.scored(results)
    named = tuple(dict.fromkeys((*STREAMS, *(name for s in scored for name in s.alone))))
    table = [_record(result, named, [name for s in scored[:1] for name in s.without]) for result in results]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def _record(result: SettingResult, alone: Sequence[str], without: Sequence[str]) -> dict[str, object]:
    scores = result.scores
    processed = scores.processed if scores else None
    record: dict[str, object] = {
        "setting": result.name,
        "candidate": result.candidate,
        "seeds": result.seeds,
        "wanted": result.wanted,
        "error": result.error,
        "split": result.split,
        "metric": scores.metric if scores else "",
    }
    for name, interval in (("main", scores and scores.main), ("second", scores and scores.second)):
        values = dataclasses.astuple(interval) if interval else (None,) * 4
        record |= dict(zip((name, f"{name}_sd", f"{name}_low", f"{name}_high"), values, strict=True))
    record |= {name: scores.dimensions.get(name) if scores else None for name in DIMENSIONS}
    paired = dataclasses.astuple(result.comparison) if result.comparison else (None,) * 4
    record |= dict(zip(("difference", "difference_low", "difference_high", "p"), paired, strict=True))
    return record | {
        "p_holm": result.p_holm,
        **{f"{name}_only": scores and scores.alone.get(name) for name in alone},
        **{f"without_{name}": scores and scores.without.get(name) for name in without},
        "postprocessed": processed and processed.main,
        "postprocessed_second": processed and processed.second,
        "steps_kept": " ".join(f"{k}:{v}" for k, v in processed.kept.items()) if processed else "",
        "parameters": scores and scores.parameters,
        "flops_per_frame": scores and scores.flops,
        "step_seconds": scores and scores.step_seconds,
        "folders": " ".join(result.folders),
        "command": result.command,
    }
