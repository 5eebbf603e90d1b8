"""A forest plot as inline SVG and HTML: dots with intervals, in groups."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from avemo.report.charts import HEIGHT, WIDTH, figure_caption, swatch, ticks
from avemo.report.markup import ABSENT, number, percent, tag, tick_label


@dataclasses.dataclass(frozen=True)
class Dot:
    """A value with its interval; an interval of NaN is not drawn. `label` is HTML, `style` a CSS class."""

    label: str
    style: str
    value: float
    low: float
    high: float


def plot(
    groups: Sequence[tuple[str, Sequence[Dot]]],
    *,
    title: str,
    x_label: str,
    reference: Mapping[str, float],
    reference_label: str,
    percentages: bool = False,
) -> str:
    """Draws groups of dots with intervals from 0 to 1, further left if an interval is negative.

    Args:
      groups: a heading and its dots.
      title, x_label: plain text or HTML.
      reference: value of a dashed mark by heading; may be empty.
      reference_label: name of that mark.
      percentages: whether values are shown as percentages.

    Returns:
      A `<figure>`.
    """
    least = min([0.0, *(dot.low for _, dots in groups for dot in dots if math.isfinite(dot.low))])
    low = math.floor(least * 5) / 5

    def left(x: float) -> float:
        return (min(max(x, low), 1.0) - low) / (1.0 - low) * WIDTH

    marks = ticks(low, 1.0, 5)
    grid = f'<path class="grid" d="{"".join(f"M{left(x):.0f} 0V{HEIGHT}" for x in marks)}"/>'
    body = []
    for heading, dots in groups:
        body.append(f'<div class="group">{heading}</div>')
        background = grid
        if heading in reference:
            background += f'<path class="ceiling" d="M{left(reference[heading]):.0f} 0V{HEIGHT}"/>'
        for dot in dots:
            shape = "".join((background, *_shapes(dot, left)))
            body.append(_line(dot, shape, percentages))
    axis = "".join(
        f'<span style="left:{left(x) / WIDTH:.2%}">{f"{100 * x:.0f}" if percentages else tick_label(x)}</span>'
        for x in marks
    )
    return tag(
        "figure",
        figure_caption(title, swatch("ceiling", reference_label) if reference else "")
        + f'<div class="forest">{"".join(body)}<div class="x" aria-hidden="true">{axis}</div>'
        f'<div class="xlabel">{x_label}</div></div>',
        class_="chart",
    )


def _shapes(dot: Dot, left: Callable[[float], float]) -> list[str]:
    shapes = []
    if math.isfinite(dot.low) and math.isfinite(dot.high):
        shapes.append(f'<path class="whisker" d="M{left(dot.low):.0f} 500H{left(dot.high):.0f}"/>')
    if math.isfinite(dot.value):
        shapes.append(f'<path class="dot" d="M{left(dot.value):.0f} 500h.1"/>')
    return shapes


def _line(dot: Dot, shape: str, percentages: bool) -> str:
    drawing = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f'<g class="line {dot.style}">{shape}</g></svg>'
    )
    text = ABSENT if not math.isfinite(dot.value) else percent(dot.value) if percentages else number(dot.value)
    return f'<div class="label">{dot.label}</div><div class="canvas">{drawing}</div><div class="value">{text}</div>'
