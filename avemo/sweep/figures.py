"""The figures of a sweep as PNG of a paper's width: forest plot, accuracy against parameters, per-recording scatter."""

import io
from collections.abc import Callable, Sequence

import matplotlib
from etils import epath
from matplotlib.figure import Figure

from avemo.sweep.summary import Row

_INK, _MUTED, _ACCENT = "#1b1f24", "#8b949e", "#0b63b5"
_HALO = {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.4}  # names stay legible over error bars
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


def write(rows: Sequence[Row], folder: epath.Path) -> list[epath.Path]:
    """Draws what the rows allow into `folder`; returns the paths."""
    done = [row for row in rows if row.main is not None]
    if not done:
        return []
    written = []
    for name, draw in (("forest", forest), ("parameters", parameters), ("recordings", recordings)):
        with matplotlib.rc_context(_STYLE):
            figure = draw(done)
        if figure is None:
            continue
        data = io.BytesIO()
        # No software version in the file: the same rows give the same bytes.
        figure.savefig(data, format="png", dpi=200, metadata={"Software": None})
        path = folder / f"{name}.png"
        path.write_bytes(data.getvalue())
        written.append(path)
    return written


def _figure(width: float, height: float) -> tuple[Figure, object]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def forest(rows: Sequence[Row]) -> Figure:
    """Each row's score and 95 % interval over recordings, best at the top; the reference's as a band."""
    rows = sorted(rows, key=lambda r: r.main.value)
    figure, axes = _figure(5.2, 0.6 + 0.24 * len(rows))
    for y, row in enumerate(rows):
        colour = _ACCENT if row.reference else _INK
        axes.plot([row.main.low, row.main.high], [y, y], color=colour, lw=1.2, solid_capstyle="butt")
        axes.plot(row.main.value, y, "s", ms=4, color=colour)
        if row.processed is not None:
            axes.plot(row.processed, y, "o", ms=3.5, mfc="white", mec=colour, mew=0.8)
        if row.reference:
            axes.axvline(row.main.value, color=_ACCENT, lw=0.6, ls=(0, (4, 3)), zorder=0)
    axes.set_yticks(range(len(rows)), [r.name for r in rows])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    processed = "; ○ post-processed" if any(r.processed is not None for r in rows) else ""
    axes.set_xlabel(f"{_metric(rows)} on {rows[0].split}, ■ seed mean, bar 95 % over recordings{processed}")
    axes.grid(axis="x", color="#e6e8eb", lw=0.6)
    axes.set_axisbelow(True)
    return figure


def parameters(rows: Sequence[Row]) -> Figure | None:
    """Score against parameters, log axis."""
    rows = [r for r in rows if r.parameters]
    if not rows:
        return None
    figure, axes = _figure(5.2, 3.4)
    for row in rows:
        colour = _ACCENT if row.reference else _INK
        spread = row.main.deviation if row.seeds > 1 else 0.0
        axes.errorbar(row.parameters, row.main.value, spread, fmt="o", ms=4, lw=0.9, capsize=2, color=colour)
    axes.set_xscale("log")
    axes.set_xlabel("parameters")
    axes.set_ylabel(f"{_metric(rows)} on {rows[0].split} ± sd over seeds")
    axes.grid(color="#e6e8eb", lw=0.6)
    axes.set_axisbelow(True)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.12)  # room for the names at the right
    _ticks(axes)
    figure.draw_without_rendering()  # label placement needs the final scales
    _label_apart(axes, [(r.parameters, r.main.value, r.name) for r in rows])
    return figure


def _ticks(axes: object) -> None:
    """Plain tick labels at 1, 2, 5 of each decade: a sweep rarely spans two."""
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    text: Callable = lambda x, _: f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1e3:g}k" if x >= 1e3 else f"{x:g}"  # noqa: E731
    axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(text))
    axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def _label_apart(axes: object, points: list[tuple[float, float, str]]) -> None:
    """Writes each name beside its point, pushed up where it would cover another one's."""
    placed: list[tuple[float, float, float]] = []
    for x, y, name in sorted(points, key=lambda p: p[1]):
        px, py = axes.transData.transform((x, y))
        width = 4.6 * len(name) * axes.figure.dpi / 72
        height = 9.0 * axes.figure.dpi / 72
        level = py
        while any(abs(level - b) < height and px < a + w and a < px + width for a, b, w in placed):
            level += height / 4
        placed.append((px, level, width))
        lift = (level - py) * 72 / axes.figure.dpi
        axes.annotate(name, (x, y), xytext=(5, lift), textcoords="offset points", va="center", fontsize=6.5, bbox=_HALO)


def recordings(rows: Sequence[Row]) -> Figure | None:
    """Each recording's score under each row against its score under the reference."""
    reference = next((r for r in rows if r.reference), None)
    others = [r for r in rows if not r.reference and r.recordings]
    if reference is None or not others or len(reference.recordings) > 500:
        return None
    columns = min(5, len(others))
    lines = -(-len(others) // columns)
    figure = Figure(figsize=(1.45 * columns + 0.4, 1.5 * lines + 0.5), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    every = [v for r in (reference, *others) for v in r.recordings.values()]
    low, high = min(every) - 0.03, max(every) + 0.03
    for axes, row in zip(grid.flat, others, strict=False):
        names = [n for n in reference.recordings if n in row.recordings]
        axes.plot([low, high], [low, high], color=_MUTED, lw=0.6)
        x, y = ([r.recordings[n] for n in names] for r in (reference, row))
        axes.plot(x, y, "o", ms=2.6, mfc=_ACCENT, mec="none", alpha=0.75)
        axes.set_title(row.name, fontsize=7)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.tick_params(labelsize=6)
    for axes in list(grid.flat)[len(others) :]:
        axes.set_visible(False)
    # A recording has one emotion: what there is of a recall is how many seeds hit it.
    score = "CCC of each recording" if _metric(rows) == "CCC" else "share of seeds that are right on each recording"
    figure.supxlabel(f"{reference.name}, {score}", fontsize=7)
    figure.supylabel("under the setting named above", fontsize=7)
    return figure


def _metric(rows: Sequence[Row]) -> str:
    return rows[0].metric or "score"
