"""A trace as a picture for a README or a paper."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from avemo.evaluation import estimates
from avemo.metrics import DIMENSIONS
from avemo.report.traces import spans
from avemo.runs import reader
from avemo.runs.reader import RecordingTraces
from media.errors import UserError

BLUE, GOLD, NO_FACE, NO_SOUND = "#0072b2", "#222222", "#e69f00", "#cc79a7"  # Okabe and Ito's palette


def choose(traces: Sequence[RecordingTraces], recording: str | None) -> RecordingTraces:
    """The named recording; by default the one of median mean CCC, so neither the best nor the worst of the split.

    Raises:
      UserError: no recording has that name.
    """
    if recording is not None:
        for trace in traces:
            if trace.recording == recording:
                return trace
        raise UserError(f"no recording {recording!r}: there are {', '.join(sorted(t.recording for t in traces))}.")
    scores = [estimates.of_recording(trace) for trace in traces]
    ranked = sorted((float(np.mean([v["ccc"] for v in s.values()])), i) for i, s in enumerate(scores) if s)
    return traces[ranked[len(ranked) // 2][1]] if ranked else traces[0]


def trace_png(
    run_folder: str | epath.Path, split: str, output: str | epath.Path, recording: str | None = None
) -> epath.Path:
    """Draws predicted against gold valence and arousal of one recording as a PNG of 1800 × 920 pixels.

    Args:
      run_folder: a run with traces (task `audiovisual` without classes).
      split: which of its saved predictions.
      output: the file to write, local or gs://.
      recording: name of the recording; by default the one of median CCC.

    Returns:
      The path written.

    Raises:
      UserError: the folder is not a run, has no such predictions or recording, or `output` cannot be written.
    """
    traces = reader.load(run_folder).traces(split)
    if not traces:
        raise UserError(
            f"{run_folder} has no traces of split {split!r}: it predicts classes, or frames without a time."
        )
    figure = _draw(choose(traces, recording))
    output = epath.Path(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("wb") as file:
            figure.savefig(file, format="png", facecolor="white")
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}.") from error
    return output


def _draw(trace: RecordingTraces) -> Any:
    # Matplotlib takes a second to import, and the report itself does not need it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1, sharex=True)
    shades = _shade(axes, trace)
    top = np.nanmax(np.abs(np.concatenate([trace.prediction, trace.target])), initial=0.0)
    top = max(0.5, float(np.ceil(top * 4) / 4))
    scores = estimates.of_recording(trace)
    for i, (axis, name) in enumerate(zip(axes, DIMENSIONS, strict=True)):
        axis.axhline(0, color="#999999", linewidth=0.6)
        (gold,) = axis.plot(
            trace.time, trace.target[:, i], color=GOLD, linewidth=1.6, label="gold (mean of the raters)"
        )
        (predicted,) = axis.plot(trace.time, trace.prediction[:, i], color=BLUE, linewidth=1.6, label="predicted")
        axis.set(ylim=(-top, top), ylabel=name, xlim=(trace.time[0], trace.time[-1]) if len(trace.time) > 1 else None)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#dddddd", linewidth=0.5)
        axis.set_axisbelow(True)
        if name in scores:
            axis.set_title(f"CCC {scores[name]['ccc']:.2f}", loc="right", fontsize=9, pad=3)
    axes[1].set_xlabel("time (s)")
    figure.legend(handles=[gold, predicted, *shades], loc="outside upper left", ncols=4, frameon=False, fontsize=9)
    return figure


def _shade(axes: Sequence[Any], trace: RecordingTraces) -> list[Any]:
    """Shades the stretches without a face or sound; returns legend entries for those that occur."""
    from matplotlib.patches import Patch

    entries = []
    for mask, color, label in (
        (trace.visual_mask, NO_FACE, "no face"),
        (trace.audio_mask, NO_SOUND, "no sound"),
    ):
        found = list(spans(~mask, trace.time))
        for axis in axes:
            for begin, end in found:
                axis.axvspan(begin, end, color=color, alpha=0.22, linewidth=0)
        if found:
            entries.append(Patch(color=color, alpha=0.22, linewidth=0, label=label))
    return entries
