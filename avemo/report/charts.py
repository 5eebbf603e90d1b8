"""Charts as inline SVG that fills its box, with the text around it in HTML: legible at any width, without a script.

The drawing is stretched (`preserveAspectRatio="none"`); strokes keep their width (`vector-effect`), and what must not
be stretched (tick labels, legends) is HTML placed by percentages.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from avemo.report.markup import ABSENT, escape, number, tag

WIDTH, HEIGHT = 2000, 1000  # user units of every drawing


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a chart: x and y `[N]`; NaN breaks it. `style` is its CSS class (colour and dashes)."""

    label: str
    x: np.ndarray
    y: np.ndarray
    style: str
    dots: bool = False


@dataclasses.dataclass(frozen=True)
class Band:
    """A shaded span of x, with its CSS class."""

    begin: float
    end: float
    style: str


def ticks(low: float, high: float, target: int = 5) -> list[float]:
    """About `target` round numbers from `low` to `high`."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    raw = span / target
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_label(value: float) -> str:
    """A tick without needless zeros."""
    return f"{value:,.10g}".replace("-", "\N{MINUS SIGN}")


def limits(series: Sequence[Series], low: float | None = None, high: float | None = None) -> tuple[float, float]:
    """The y range of the finite values, widened to round ticks; given ends are kept."""
    values = np.concatenate([s.y for s in series] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    least, most = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    least, most = least if low is None else low, most if high is None else high
    if most <= least:
        least, most = least - 0.5, most + 0.5
    marks = ticks(least, most)
    step = marks[1] - marks[0] if len(marks) > 1 else most - least
    return (
        math.floor(least / step + 1e-9) * step if low is None else least,
        math.ceil(most / step - 1e-9) * step if high is None else most,
    )


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Path of points in user units: absolute at the start of each unbroken stretch, then whole-unit steps."""
    out: list[str] = []
    previous: tuple[int, int] | None = None
    for px, py in zip(x, y, strict=True):
        if not (math.isfinite(px) and math.isfinite(py)):
            previous = None
            continue
        point = (round(px), round(py))
        out.append(
            f"M{point[0]} {point[1]}l0 0"
            if previous is None
            else f"{' ' if out[-1][-1].isdigit() and point[0] >= previous[0] else ''}"
            f"{point[0] - previous[0]} {point[1] - previous[1]}"
        )
        previous = point
    return "".join(out)


def swatch(style: str, label: str, dots: bool = False) -> str:
    """A legend entry: a stroke (or a dot) in the style of a series, and its name."""
    shape = '<path d="M12 6h.01" class="dot"/>' if dots else '<path d="M1 6h22"/>'
    drawing = f'<svg class="swatch {style}" viewBox="0 0 24 12" aria-hidden="true">{shape}</svg>'
    return f'<span class="key">{drawing}{label}</span>'


def plot(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    bands: Sequence[Band] = (),
    legend: str | None = None,
    class_: str = "",
    describe: str = "",
    live: bool = False,
) -> str:
    """A line chart.

    Args:
      series: the lines, back to front.
      title, x_label, y_label: plain text or HTML.
      y_range, x_range: given ranges; by default those of the data.
      bands: spans of x shaded behind the lines.
      legend: HTML in place of the legend made from the series; "" for none.
      class_: further classes of the figure.
      describe: what a screen reader says; the title by default.
      live: whether the script reads values off the lines under the pointer.

    Returns:
      A `<figure>`.
    """
    y0, y1 = y_range or limits(series)
    if x_range is None:
        xs = np.concatenate([s.x for s in series] or [np.zeros(1)])
        x_range = (float(xs.min()), float(xs.max())) if len(xs) else (0.0, 1.0)
    x0, x1 = x_range if x_range[1] > x_range[0] else (x_range[0] - 0.5, x_range[0] + 0.5)

    def px(x: np.ndarray | float) -> np.ndarray | float:
        return (x - x0) / (x1 - x0) * WIDTH

    def py(y: np.ndarray | float) -> np.ndarray | float:
        return (y1 - y) / (y1 - y0) * HEIGHT

    x_ticks, y_ticks = ticks(x0, x1, 6), ticks(y0, y1, 4)
    shapes = []
    for band in bands:
        left, right = (float(np.clip(px(v), 0, WIDTH)) for v in (band.begin, band.end))
        width = max(right - left, 2)
        shapes.append(f'<rect class="{band.style}" x="{left:.0f}" y="0" width="{width:.0f}" height="{HEIGHT}"/>')
        # A bar along the top (no face) or the bottom (no sound) says by place what the tint says by colour.
        edge = 0 if band.style == "noface" else HEIGHT - 36
        shapes.append(f'<rect class="{band.style} edge" x="{left:.0f}" y="{edge}" width="{width:.0f}" height="36"/>')
    grid = "".join(f"M0 {py(y):.0f}H{WIDTH}" for y in y_ticks)
    shapes.append(f'<path class="grid" d="{grid}"/>')
    if y0 < 0 < y1:
        shapes.append(f'<path class="zero" d="M0 {py(0.0):.0f}H{WIDTH}"/>')
    for s in series:
        keep = np.isfinite(s.x)
        x, y = px(s.x[keep]), py(s.y[keep])
        inner = f'<path d="{_path(x, y)}"/>'
        if s.dots:
            dots = "".join(f"M{a:.0f} {b:.0f}h.1" for a, b in zip(x, y, strict=True) if math.isfinite(b))
            inner += f'<path class="dot" d="{dots}"/>'
        name = f' data-label="{escape(s.label)}"' if live else ""
        shapes.append(f'<g class="line {s.style}"{name}>{inner}</g>')
    data = f' data-x="{x0:.6g} {x1:.6g}" data-y="{y0:.6g} {y1:.6g}"' if live else ""
    drawing = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(describe or title)}"{data}>{"".join(shapes)}</svg>'
    )
    if legend is None:
        legend = "".join(swatch(s.style, escape(s.label)) for s in series) if len(series) > 1 else ""
    y_axis = "".join(f'<span style="top:{py(y) / HEIGHT:.2%}">{tick_label(y)}</span>' for y in y_ticks)
    x_axis = "".join(f'<span style="left:{px(x) / WIDTH:.2%}">{tick_label(x)}</span>' for x in x_ticks)
    return tag(
        "figure",
        f"<figcaption><b>{title}</b>{tag('span', legend, class_='legend') if legend else ''}</figcaption>"
        f'<div class="plot"><div class="unit">{y_label}</div><div class="y" aria-hidden="true">{y_axis}</div>'
        f'<div class="canvas">{drawing}</div><div class="x" aria-hidden="true">{x_axis}</div>'
        f'<div class="xlabel">{x_label}</div></div>',
        class_=f"chart {class_}".strip(),
    )


def intervals(
    groups: Sequence[tuple[str, Sequence[tuple[str, str, float, float, float]]]],
    *,
    title: str,
    x_label: str,
    reference: dict[str, float] | None = None,
    reference_label: str = "",
    x_range: tuple[float, float] = (0.0, 1.0),
    as_text: str = "number",
) -> str:
    """Dots with intervals, in groups of rows: `(group, [(label, style, value, low, high)])`.

    `reference` draws a dashed mark at one value a group (the ceiling). `as_text` is "number" or "percent".
    """
    from avemo.report.markup import percent

    write = percent if as_text == "percent" else number
    low_end = min([x_range[0], *(r[3] for _, rows in groups for r in rows if math.isfinite(r[3]))])
    x0, x1 = (math.floor(low_end * 5) / 5 if low_end < x_range[0] else x_range[0]), x_range[1]

    def left(x: float) -> float:
        return (min(max(x, x0), x1) - x0) / (x1 - x0) * WIDTH

    rows_html = []
    for group, rows in groups:
        rows_html.append(f'<div class="group">{group}</div>')
        mark = (reference or {}).get(group)
        for label, style, value, low, high in rows:
            grid = "".join(f"M{left(x):.0f} 0V{HEIGHT}" for x in ticks(x0, x1, 5))
            inner = f'<path class="grid" d="{grid}"/>'
            if mark is not None:
                inner += f'<path class="ceiling" d="M{left(mark):.0f} 0V{HEIGHT}"/>'
            if math.isfinite(low) and math.isfinite(high):
                inner += f'<path class="whisker" d="M{left(low):.0f} 500H{left(high):.0f}"/>'
            if math.isfinite(value):
                inner += f'<path class="dot" d="M{left(value):.0f} 500h.1"/>'
            drawing = (
                f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
                f'<g class="line {style}">{inner}</g></svg>'
            )
            text = write(value) if math.isfinite(value) else ABSENT
            rows_html.append(
                f'<div class="label">{label}</div><div class="canvas">{drawing}</div><div class="value">{text}</div>'
            )
    axis = "".join(
        f'<span style="left:{left(x) / WIDTH:.2%}">{f"{100 * x:.0f}" if as_text == "percent" else tick_label(x)}</span>'
        for x in ticks(x0, x1, 5)
    )
    key = swatch("ceiling", reference_label) if reference else ""
    return tag(
        "figure",
        f"<figcaption><b>{title}</b>{tag('span', key, class_='legend') if key else ''}</figcaption>"
        f'<div class="forest">{"".join(rows_html)}<div class="x" aria-hidden="true">{axis}</div>'
        f'<div class="xlabel">{x_label}</div></div>',
        class_="chart",
    )


def confusion(counts: np.ndarray, names: Sequence[str], caption: str) -> str:
    """Confusion counts `[C, C]` as a table: shares of each true class (a row), counts beneath, shaded by share."""
    total = counts.sum(1, keepdims=True)
    share = counts / np.maximum(total, 1)
    head = "".join(f'<th scope="col"><abbr title="{escape(n)}">{escape(n[:3])}</abbr></th>' for n in names)
    body = []
    for i, name in enumerate(names):
        cells = []
        for j, other in enumerate(names):
            value = share[i, j]
            if counts[i, j]:
                text = f"{100 * value:.0f}<small>{counts[i, j]}</small>"
            else:
                text = '<span class="soft">0</span>' if total[i, 0] else ABSENT
            strong = " hit" if i == j else ""
            cells.append(
                f'<td class="cell{strong}{" deep" if value > 0.8 else ""}" style="--share:{value:.2f}" '
                f'title="{escape(name)} read as {escape(other)}: {counts[i, j]} of {total[i, 0]}">'
                f"{text}</td>"
            )
        body.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="confusion matrix"><table class="confusion">'
        f'<caption>{caption}</caption><thead><tr><th scope="col">true \\ read as</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )
