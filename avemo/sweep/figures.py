"""The figures of a sweep as PNG for a paper: forest plot, score against parameters, scatter by recording."""

import io
from collections.abc import Sequence

import matplotlib
from etils import epath
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avemo.sweep.summary import SettingResult, SettingScores

_INK, _MUTED, _ACCENT, _GRID = "#1b1f24", "#8b949e", "#0b63b5", "#e6e8eb"
_HALO = {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.4}  # keeps names legible over error bars
_STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
Scored = Sequence[tuple[SettingResult, SettingScores]]


def write(results: Sequence[SettingResult], folder: epath.Path) -> list[epath.Path]:
    """Draws the figures that the results allow into `folder`; returns their paths."""
    scored = [(result, result.scores) for result in results if result.scores]
    if not scored:
        return []
    written = []
    for name, draw in (("forest", forest), ("parameters", parameters), ("recordings", recordings)):
        with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]  # the stubs list every key of rcParams
            figure = draw(scored)
        if figure is None:
            continue
        data = io.BytesIO()
        # No software version in the file: the same results give the same bytes.
        figure.savefig(data, format="png", dpi=200, metadata={"Software": None})
        path = folder / f"{name}.png"
        path.write_bytes(data.getvalue())
        written.append(path)
    return written


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_axisbelow(True)
    return figure, axes


def _metric(scored: Scored) -> str:
    result, scores = scored[0]
    return f"{scores.metric} on {result.split}"


def _colour(result: SettingResult) -> str:
    return _ACCENT if result.reference else _INK


def forest(scored: Scored) -> Figure:
    """Each setting's score and 95 % interval over recordings, best at the top; a dashed line marks the reference."""
    ordered = sorted(scored, key=lambda pair: pair[1].main.value)
    figure, axes = _figure(5.2, 0.6 + 0.24 * len(ordered))
    for y, (result, scores) in enumerate(ordered):
        colour, main = _colour(result), scores.main
        axes.plot([main.low, main.high], [y, y], color=colour, lw=1.2, solid_capstyle="butt")
        axes.plot(main.value, y, "s", ms=4, color=colour)
        if scores.processed:
            axes.plot(scores.processed.main, y, "o", ms=3.5, mfc="white", mec=colour, mew=0.8)
        if result.reference:
            axes.axvline(main.value, color=_ACCENT, lw=0.6, ls=(0, (4, 3)), zorder=0)
    axes.set_yticks(range(len(ordered)), [result.name for result, _ in ordered])
    axes.set_ylim(-0.7, len(ordered) - 0.3)
    processed = "; ○ post-processed" if any(scores.processed for _, scores in scored) else ""
    axes.set_xlabel(f"{_metric(scored)}, ■ seed mean, bar 95 % over recordings{processed}")
    axes.grid(axis="x", color=_GRID, lw=0.6)
    return figure


def parameters(scored: Scored) -> Figure | None:
    """Score against parameters, log axis; None if no setting has parameters."""
    scored = [(result, scores) for result, scores in scored if scores.parameters]
    if not scored:
        return None
    figure, axes = _figure(5.2, 3.4)
    for result, scores in scored:
        deviation = scores.main.deviation if result.seeds > 1 else 0.0
        axes.errorbar(
            scores.parameters, scores.main.value, deviation, fmt="o", ms=4, lw=0.9, capsize=2, color=_colour(result)
        )
    axes.set_xscale("log")
    axes.set_xlabel("parameters")
    axes.set_ylabel(f"{_metric(scored)} ± sd over seeds")
    axes.grid(color=_GRID, lw=0.6)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.12)  # room for the names at the right
    _ticks(axes)
    figure.draw_without_rendering()  # label placement needs the final scales
    _label_apart(axes, figure.dpi, [(s.parameters, s.main.value, result.name) for result, s in scored])
    return figure


def _ticks(axes: Axes) -> None:
    """Plain tick labels at 1, 2 and 5 of each decade; a sweep rarely spans two."""

    def text(x: float, _: object) -> str:
        return f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1e3:g}k" if x >= 1e3 else f"{x:g}"

    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(text))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())


def _label_apart(axes: Axes, dpi: float, points: list[tuple[float, float, str]]) -> None:
    """Writes each name beside its point, moved up if it would cover another."""
    placed: list[tuple[float, float, float]] = []
    for x, y, name in sorted(points, key=lambda p: p[1]):
        px, py = axes.transData.transform((x, y))
        width, height = 4.6 * len(name) * dpi / 72, 9.0 * dpi / 72
        level = py
        while any(abs(level - b) < height and px < a + w and a < px + width for a, b, w in placed):
            level += height / 4
        placed.append((px, level, width))
        lift = (level - py) * 72 / dpi
        axes.annotate(name, (x, y), xytext=(5, lift), textcoords="offset points", va="center", fontsize=6.5, bbox=_HALO)


def recordings(scored: Scored) -> Figure | None:
    """Each recording's score under each setting against its score under the reference.

    None if there is nothing to compare, or more than 500 recordings.
    """
    reference = next(((r, s) for r, s in scored if r.reference), None)
    others = [(r, s) for r, s in scored if not r.reference and s.recordings]
    if reference is None or not others or len(reference[1].recordings) > 500:
        return None
    columns = min(5, len(others))
    lines = -(-len(others) // columns)
    figure = Figure(figsize=(1.45 * columns + 0.4, 1.5 * lines + 0.5), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    values = [v for _, s in (reference, *others) for v in s.recordings.values()]
    for axes, (result, scores) in zip(grid.flat, others, strict=False):
        _scatter(axes, reference[1], scores, min(values) - 0.03, max(values) + 0.03)
        axes.set_title(result.name, fontsize=7)
    for axes in list(grid.flat)[len(others) :]:
        axes.set_visible(False)
    # A recording has one emotion, so it has no recall: only the share of seeds that recognise it.
    score = "CCC of each recording" if reference[1].metric == "CCC" else "share of seeds correct on each recording"
    figure.supxlabel(f"{reference[0].name}, {score}", fontsize=7)
    figure.supylabel("the setting above each panel", fontsize=7)
    return figure


def _scatter(axes: Axes, reference: SettingScores, scores: SettingScores, low: float, high: float) -> None:
    names = [name for name in reference.recordings if name in scores.recordings]
    x, y = ([s.recordings[name] for name in names] for s in (reference, scores))
    axes.plot([low, high], [low, high], color=_MUTED, lw=0.6)
    axes.plot(x, y, "o", ms=2.6, mfc=_ACCENT, mec="none", alpha=0.75)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.tick_params(labelsize=6)
