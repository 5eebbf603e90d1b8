"""The section on traces: predictions against the raters' gold standard, recording by recording."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from avemo.evaluation import estimates
from avemo.metrics import DIMENSIONS
from avemo.report import charts, markup
from avemo.report.charts import Band, Series
from avemo.report.markup import escape, tag
from avemo.runs.reader import RecordingTraces, Run

MAX_POINTS = 2000  # per line; more than a screen can show
BUDGET = 1_000_000  # bytes for all lines of the page
BYTES_PER_POINT = 7
OTHERS = {"audio": "audio only", "visual": "visual only"}


@dataclasses.dataclass(frozen=True)
class _Shown:
    """One recording on the page.

    Attributes:
      number: its place on the page.
      split: the split it belongs to.
      trace: what the main run predicted.
      beside: predictions of the single-modality runs, by modality.
    """

    number: int
    split: str
    trace: RecordingTraces
    beside: dict[str, RecordingTraces]


def spans(absent: np.ndarray, time: np.ndarray) -> Iterable[tuple[float, float]]:
    """Begin and end, in s, of each unbroken stretch of True in `absent` `[T]`, widened by half a frame on each side."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], absent.astype(np.int8), [0]])))
    half = float(np.median(np.diff(time))) / 2 if len(time) > 1 else 0.5
    for begin, end in edges.reshape(-1, 2):
        yield float(time[begin]) - half, float(time[end - 1]) + half


def section(runs: Sequence[Run]) -> str:
    """The whole section, or "" if no run has traces."""
    # The fused model comes first; in a folder without one, any run will do.
    order = sorted(runs, key=lambda r: {"both": 0, None: 2}.get(r.modality, 1))
    main = next((run for run in order if any(run.traces(split) for split in run.splits)), None)
    if main is None:
        return ""
    others = {r.modality: r for r in runs if r.modality in OTHERS and r is not main} if main.modality == "both" else {}
    shown = _recordings(main, others)
    lines = 2 * len(shown) * (2 + len(others))
    points = int(np.clip(BUDGET / BYTES_PER_POINT / max(lines, 1), 100, MAX_POINTS))
    scale = _scale([trace for one in shown for trace in (one.trace, *one.beside.values())])
    stride = max(_stride(one.trace, points) for one in shown)
    thinned = f" Lines show at least every {stride}th frame; scores use all." if stride > 1 else ""
    return tag(
        "section",
        f"<h2>Predicted against gold</h2><p>{escape(main.name)}: the prediction for each recording beside the gold "
        f"standard, the mean of the raters' traces.{thinned}</p>"
        + _controls(shown)
        + f'<div id="recordings">{"".join(_recording(one, scale, points) for one in shown)}</div>'
        + markup.details(f"All {len(shown)} recordings as a table", _table(shown)),
        id="traces",
    )


def _recordings(main: Run, others: Mapping[str, Run]) -> list[_Shown]:
    """The recordings of the main run; a trace of another run is shown beside if it has as many frames."""
    shown: list[_Shown] = []
    for split in main.splits:
        beside = {
            (name, trace.recording): trace
            for name, run in others.items()
            if split in run.splits
            for trace in run.traces(split)
        }
        for trace in main.traces(split):
            found = {name: beside[name, trace.recording] for name in OTHERS if (name, trace.recording) in beside}
            found = {name: other for name, other in found.items() if len(other.time) == len(trace.time)}
            shown.append(_Shown(len(shown), split, trace, found))
    return shown


def _scale(traces: Sequence[RecordingTraces]) -> float:
    """One symmetric range for all recordings, so that they can be compared: the largest value, rounded up to 0.25."""
    values = np.concatenate([np.abs(np.concatenate([t.prediction, t.target])).ravel() for t in traces])
    values = values[np.isfinite(values)]
    top = float(values.max()) if len(values) else 1.0
    return float(np.clip(np.ceil(top * 4) / 4, 0.5, 10))


def _stride(trace: RecordingTraces, points: int) -> int:
    return max(1, -(-len(trace.time) // points))


def _controls(shown: Sequence[_Shown]) -> str:
    groups: dict[str, list[str]] = {}
    for one in shown:
        option = f'<option value="{one.number}">{escape(one.trace.recording)}</option>'
        groups.setdefault(one.split, []).append(option)
    options = "".join(f'<optgroup label="{escape(split)}">{"".join(o)}</optgroup>' for split, o in groups.items())
    toggles = "".join(
        f'<label class="toggle"><input type="checkbox" data-toggle="s-{name}"> '
        f"{charts.swatch(f's-{name}', label)}</label>"
        for name, label in OTHERS.items()
        if any(one.beside for one in shown)
    )
    return (
        '<div class="controls"><label for="recording">Recording</label> '
        '<button type="button" data-move="-1" aria-label="previous recording">&lsaquo;</button>'
        f'<select id="recording">{options}</select>'
        f'<button type="button" data-move="1" aria-label="next recording">&rsaquo;</button>{toggles}</div>'
    )


def _recording(one: _Shown, scale: float, points: int) -> str:
    trace, bands = one.trace, _bands(one.trace)
    frames = slice(None, None, _stride(trace, points))
    plots = [_dimension(one, column, frames, bands, scale) for column in range(len(DIMENSIONS))]
    if trace.gates is not None and trace.gates.ndim == 2 and trace.gates.shape[1] == 2:
        gates = [
            Series(f"weight of {name}", trace.time[frames], trace.gates[frames, i], f"s-{name}")
            for i, name in enumerate(OTHERS)
        ]
        plots.append(
            charts.plot(
                gates,
                title="What the fusion relies on",
                x_label="time (s)",
                y_label="gate",
                y_range=(0.0, 1.0),
                x_range=_time_range(trace),
                bands=bands,
                class_="trace low",
                live=True,
            )
        )
    return (
        f'<article class="recording" data-number="{one.number}"><h3>{escape(trace.recording)} '
        f"<small>{escape(one.split)}</small></h3>{''.join(plots)}</article>"
    )


def _bands(trace: RecordingTraces) -> list[Band]:
    return [
        Band(*span, style)
        for mask, style in ((trace.visual_mask, "noface"), (trace.audio_mask, "nosound"))
        for span in spans(~mask, trace.time)
    ]


def _time_range(trace: RecordingTraces) -> tuple[float, float]:
    return float(trace.time[0]), float(trace.time[-1])


def _dimension(one: _Shown, column: int, frames: slice, bands: Sequence[Band], scale: float) -> str:
    """The chart of one dimension; the legend stands above the first."""
    trace, dimension = one.trace, DIMENSIONS[column]
    time = trace.time[frames]
    lines = [
        Series(OTHERS[name], time, other.prediction[frames, column], f"s-{name} optional")
        for name, other in one.beside.items()
    ]
    lines.append(Series("gold", time, trace.target[frames, column], "s-gold"))
    lines.append(Series("predicted", time, trace.prediction[frames, column], "s-both"))
    score = estimates.of_recording(trace).get(dimension)
    begin, end = _time_range(trace)
    return charts.plot(
        lines,
        title=dimension.capitalize() + (f" · CCC {markup.number(score['ccc'])}" if score else " · not rated"),
        x_label="time (s)",
        y_label=dimension,
        y_range=(-scale, scale),
        x_range=(begin, end),
        bands=bands,
        legend=_legend(bands) if column == 0 else "",
        class_="trace",
        live=True,
        describe=f"{trace.recording}: predicted and gold {dimension}, {end - begin:.0f} seconds",
    )


def _legend(bands: Sequence[Band]) -> str:
    key = charts.swatch("s-gold", "gold") + charts.swatch("s-both", "predicted")
    for style, label in (("noface", "no face"), ("nosound", "no sound")):
        if any(band.style == style for band in bands):
            key += f'<span class="key"><i class="patch {style}"></i>{label}</span>'
    return key


def _table(shown: Sequence[_Shown]) -> str:
    head = ["recording", *(f"{d} {m}" for d in DIMENSIONS for m in ("CCC", "RMSE")), "no face", "no sound", "length"]
    rows = []
    for one in shown:
        trace, scores = one.trace, estimates.of_recording(one.trace)
        begin, end = _time_range(trace)
        rows.append(
            [
                f"{escape(trace.recording)} <small>{escape(one.split)}</small>",
                *(markup.number(scores.get(d, {}).get(name)) for d in DIMENSIONS for name in ("ccc", "rmse")),
                markup.percent(float((~trace.visual_mask).mean())),
                markup.percent(float((~trace.audio_mask).mean())),
                markup.duration(end - begin),
            ]
        )
    return markup.table("Scores of each recording alone", head, rows, class_="numbers")
