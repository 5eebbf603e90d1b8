"""Line charts as inline SVG that fills its box, with HTML text around it: legible at any width, without a script.

The drawing is stretched (`preserveAspectRatio="none"`) but strokes keep their width (`vector-effect`). What must not be
stretched, such as tick labels and legends, is HTML placed by percentages.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from avemo.report.markup import escape, tag, tick_label

WIDTH, HEIGHT = 2000, 1000  # user units of every drawing
EDGE = 36  # user units, height of the bar that marks a band
Number = TypeVar("Number", float, np.ndarray)


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a chart: x and y `[N]`; NaN breaks the line. `style` is its CSS class (colour and dashes)."""

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


@dataclasses.dataclass(frozen=True)
class _Scale:
    """Maps the ranges of a chart to user units."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, x: Number) -> Number:
        return (x - self.x0) / (self.x1 - self.x0) * WIDTH

    def y(self, y: Number) -> Number:
        return (self.y1 - y) / (self.y1 - self.y0) * HEIGHT


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


def limits(series: Sequence[Series], low: float | None = None, high: float | None = None) -> tuple[float, float]:
    """The y range of the finite values, widened to round ticks; a given end is kept."""
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


def path(x: np.ndarray, y: np.ndarray) -> str:
    """SVG path of points in user units, in whole units: absolute at the start of each unbroken stretch, then steps."""
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
      y_range, x_range: ranges; by default those of the data.
      bands: spans of x shaded behind the lines.
      legend: HTML instead of the legend made from the series; "" for none.
      class_: further classes of the figure.
      describe: the text for screen readers; by default the title.
      live: whether the script reads values off the lines under the pointer.

    Returns:
      A `<figure>`.
    """
    scale = _scale(series, x_range, y_range)
    x_ticks, y_ticks = ticks(scale.x0, scale.x1, 6), ticks(scale.y0, scale.y1, 4)
    shapes = [shape for band in bands for shape in _band(band, scale)]
    shapes.append(f'<path class="grid" d="{"".join(f"M0 {scale.y(y):.0f}H{WIDTH}" for y in y_ticks)}"/>')
    if scale.y0 < 0 < scale.y1:
        shapes.append(f'<path class="zero" d="M0 {scale.y(0.0):.0f}H{WIDTH}"/>')
    shapes += [_line(s, scale, live) for s in series]
    data = f' data-x="{scale.x0:.6g} {scale.x1:.6g}" data-y="{scale.y0:.6g} {scale.y1:.6g}"' if live else ""
    drawing = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(describe or title)}"{data}>{"".join(shapes)}</svg>'
    )
    if legend is None:
        legend = "".join(swatch(s.style, escape(s.label)) for s in series) if len(series) > 1 else ""
    y_axis = "".join(f'<span style="top:{scale.y(y) / HEIGHT:.2%}">{tick_label(y)}</span>' for y in y_ticks)
    x_axis = "".join(f'<span style="left:{scale.x(x) / WIDTH:.2%}">{tick_label(x)}</span>' for x in x_ticks)
    return tag(
        "figure",
        f"{figure_caption(title, legend)}"
        f'<div class="plot"><div class="unit">{y_label}</div><div class="y" aria-hidden="true">{y_axis}</div>'
        f'<div class="canvas">{drawing}</div><div class="x" aria-hidden="true">{x_axis}</div>'
        f'<div class="xlabel">{x_label}</div></div>',
        class_=f"chart {class_}".strip(),
    )


def figure_caption(title: str, legend: str) -> str:
    """The caption of a chart: title and legend, both HTML."""
    return f"<figcaption><b>{title}</b>{tag('span', legend, class_='legend') if legend else ''}</figcaption>"


def _scale(
    series: Sequence[Series], x_range: tuple[float, float] | None, y_range: tuple[float, float] | None
) -> _Scale:
    if x_range is None:
        xs = np.concatenate([s.x for s in series] or [np.zeros(1)])
        x_range = (float(xs.min()), float(xs.max())) if len(xs) else (0.0, 1.0)
    x0, x1 = x_range if x_range[1] > x_range[0] else (x_range[0] - 0.5, x_range[0] + 0.5)
    return _Scale(x0, x1, *(y_range or limits(series)))


def _band(band: Band, scale: _Scale) -> tuple[str, str]:
    left, right = (float(np.clip(scale.x(v), 0, WIDTH)) for v in (band.begin, band.end))
    place = f'x="{left:.0f}"', f'width="{max(right - left, 2):.0f}"'
    # A bar along the top (no face) or the bottom (no sound) tells the bands apart without colour.
    edge = 0 if band.style == "noface" else HEIGHT - EDGE
    return (
        f'<rect class="{band.style}" {place[0]} y="0" {place[1]} height="{HEIGHT}"/>',
        f'<rect class="{band.style} edge" {place[0]} y="{edge}" {place[1]} height="{EDGE}"/>',
    )


def _line(series: Series, scale: _Scale, live: bool) -> str:
    keep = np.isfinite(series.x)
    x, y = scale.x(series.x[keep]), scale.y(series.y[keep])
    drawing = f'<path d="{path(x, y)}"/>'
    if series.dots:
        dots = "".join(f"M{a:.0f} {b:.0f}h.1" for a, b in zip(x, y, strict=True) if math.isfinite(b))
        drawing += f'<path class="dot" d="{dots}"/>'
    name = f' data-label="{escape(series.label)}"' if live else ""
    return f'<g class="line {series.style}"{name}>{drawing}</g>'
