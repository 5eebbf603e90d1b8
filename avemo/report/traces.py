"""The section of traces: what was predicted against what raters said, recording by recording."""

from collections.abc import Iterable, Sequence

import numpy as np

from avemo.evaluation import estimates
from avemo.report import charts, markup
from avemo.report.charts import Band, Series
from avemo.report.markup import escape, tag
from avemo.runs.reader import RecordingTraces, Run

MAX_POINTS = 2000  # a line; more than a screen can show
BUDGET = 1_000_000  # bytes for all lines of the page
BYTES_A_POINT = 7
DIMENSIONS = ("valence", "arousal")
OTHERS = {"audio": "audio only", "visual": "visual only"}


def spans(absent: np.ndarray, time: np.ndarray) -> Iterable[tuple[float, float]]:
    """Begin and end, in s, of each unbroken stretch of True in `absent` `[T]`, half a frame wider on both sides."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], absent.astype(np.int8), [0]])))
    half = float(np.median(np.diff(time))) / 2 if len(time) > 1 else 0.5
    for begin, end in edges.reshape(-1, 2):
        yield float(time[begin]) - half, float(time[end - 1]) + half


def section(runs: Sequence[Run]) -> str:
    """The whole section, or "" where no run has traces with a clock."""
    # The fused model first; a folder with another run only shows that one.
    order = sorted(runs, key=lambda r: {"both": 0, None: 2}.get(r.modality, 1))
    main = next((run for run in order if any(run.traces(split) for split in run.splits)), None)
    if main is None:
        return ""
    others = {r.modality: r for r in runs if r.modality in OTHERS and r is not main} if main.modality == "both" else {}
    shown = [(split, trace) for split in main.splits for trace in main.traces(split)]
    lines = 2 * len(shown) * (2 + len(others))
    points = int(np.clip(BUDGET / BYTES_A_POINT / max(lines, 1), 100, MAX_POINTS))
    companions = {
        (name, split, t.recording): t
        for name, run in others.items()
        for split in main.splits
        if split in run.splits
        for t in run.traces(split)
    }
    scale = _scale([*(trace for _, trace in shown), *companions.values()])
    figures, table_rows = [], []
    for number, (split, trace) in enumerate(shown):
        beside = {n: companions[n, split, trace.recording] for n in OTHERS if (n, split, trace.recording) in companions}
        beside = {n: t for n, t in beside.items() if len(t.time) == len(trace.time)}
        figures.append(_recording(number, split, trace, beside, scale, points))
        table_rows.append(_row(split, trace))
    stride = max(-(-len(t.time) // points) for _, t in shown)
    thinned = f" Lines show at least every {stride}th frame; scores use all." if stride > 1 else ""
    head = ["recording", *(f"{d} {m}" for d in DIMENSIONS for m in ("CCC", "RMSE")), "no face", "no sound", "length"]
    listing = markup.table("Scores of each recording on its own", head, table_rows, class_="numbers")
    return tag(
        "section",
        f"<h2>Predicted against gold</h2><p>{escape(main.name)}: its prediction for each recording, beside the gold "
        f"standard, the mean of the raters' traces.{thinned}</p>"
        + _controls(shown, beside_any=bool(companions))
        + f'<div id="recordings">{"".join(figures)}</div>'
        + markup.details(f"All {len(shown)} recordings as a table", listing),
        id="traces",
    )


def _scale(traces: Sequence[RecordingTraces]) -> float:
    """One symmetric range for every recording, so that they compare: the largest value, up to the next 0.25."""
    values = np.concatenate([np.abs(np.concatenate([t.prediction, t.target])).ravel() for t in traces])
    values = values[np.isfinite(values)]
    top = float(values.max()) if len(values) else 1.0
    return float(np.clip(np.ceil(top * 4) / 4, 0.5, 10))


def _controls(shown: Sequence[tuple[str, RecordingTraces]], beside_any: bool) -> str:
    groups: dict[str, list[str]] = {}
    for number, (split, trace) in enumerate(shown):
        option = f'<option value="{number}">{escape(trace.recording)}</option>'
        groups.setdefault(split, []).append(option)
    options = "".join(f'<optgroup label="{escape(split)}">{"".join(o)}</optgroup>' for split, o in groups.items())
    toggles = "".join(
        f'<label class="toggle"><input type="checkbox" data-toggle="s-{name}"> '
        f"{charts.swatch(f's-{name}', label)}</label>"
        for name, label in OTHERS.items()
        if beside_any
    )
    return (
        '<div class="controls"><label for="recording">Recording</label> '
        '<button type="button" data-move="-1" aria-label="previous recording">&lsaquo;</button>'
        f'<select id="recording">{options}</select>'
        f'<button type="button" data-move="1" aria-label="next recording">&rsaquo;</button>{toggles}</div>'
    )


def _thin(trace: RecordingTraces, points: int) -> slice:
    return slice(None, None, max(1, -(-len(trace.time) // points)))


def _recording(
    number: int, split: str, trace: RecordingTraces, beside: dict[str, RecordingTraces], scale: float, points: int
) -> str:
    part = _thin(trace, points)
    time = trace.time[part]
    bands = [Band(*s, "noface") for s in spans(~trace.visual_mask, trace.time)]
    bands += [Band(*s, "nosound") for s in spans(~trace.audio_mask, trace.time)]
    values = estimates.of_recording(trace)
    key = charts.swatch("s-gold", "gold") + charts.swatch("s-both", "predicted")
    if any(b.style == "noface" for b in bands):
        key += '<span class="key"><i class="patch noface"></i>no face</span>'
    if any(b.style == "nosound" for b in bands):
        key += '<span class="key"><i class="patch nosound"></i>no sound</span>'
    x_range = (float(trace.time[0]), float(trace.time[-1]))
    plots = []
    for i, dimension in enumerate(DIMENSIONS):
        lines = [Series(OTHERS[n], time, t.prediction[part, i], f"s-{n} optional") for n, t in beside.items()]
        lines.append(Series("gold", time, trace.target[part, i], "s-gold"))
        lines.append(Series("predicted", time, trace.prediction[part, i], "s-both"))
        score = values.get(dimension)
        title = dimension.capitalize() + (f" · CCC {markup.number(score['ccc'])}" if score else " · not rated")
        plots.append(
            charts.plot(
                lines, title=title, x_label="time (s)", y_label=dimension, y_range=(-scale, scale), x_range=x_range,
                bands=bands, legend=key if i == 0 else "", class_="trace", live=True,
                describe=f"{trace.recording}: predicted and gold {dimension}, {x_range[1] - x_range[0]:.0f} seconds",
            )
        )  # fmt: skip
    if trace.gates is not None and trace.gates.ndim == 2 and trace.gates.shape[1] == 2:
        gates = [Series(f"weight of {m}", time, trace.gates[part, i], f"s-{m}") for i, m in enumerate(OTHERS)]
        plots.append(
            charts.plot(
                gates, title="What the fusion relies on", x_label="time (s)", y_label="gate", y_range=(0.0, 1.0),
                x_range=x_range, bands=bands, class_="trace low", live=True,
            )
        )  # fmt: skip
    return (
        f'<article class="recording" data-number="{number}"><h3>{escape(trace.recording)} '
        f"<small>{escape(split)}</small></h3>{''.join(plots)}</article>"
    )


def _row(split: str, trace: RecordingTraces) -> list[str]:
    values = estimates.of_recording(trace)
    cells = [f"{escape(trace.recording)} <small>{escape(split)}</small>"]
    for dimension in DIMENSIONS:
        cells += [markup.number(values.get(dimension, {}).get(name)) for name in ("ccc", "rmse")]
    seconds = float(trace.time[-1] - trace.time[0]) if len(trace.time) > 1 else 0.0
    return [
        *cells, markup.percent(float((~trace.visual_mask).mean())), markup.percent(float((~trace.audio_mask).mean())),
        markup.duration(seconds),
    ]  # fmt: skip
