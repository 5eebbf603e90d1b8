"""Figures fit for a paper, in Okabe and Ito's colours."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from avemo import configuration, metrics
from avemo.analysis import tables
from avemo.analysis.run import AnalysisRun
from avemo.metrics import DIMENSIONS
from avemo.predict.palette import COLOURS
from avemo.predict.trace import gaps
from avemo.runs.reader import RecordingTraces
from media.errors import unknown

INK = "#1d1d1f"


class Picture(Figure):
    """A figure that a notebook shows, whether or not Matplotlib's own display was set up in it."""

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        self.savefig(out, format="png")
        return out.getvalue()


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **arguments: Any) -> tuple[Figure, Any]:
    """A figure of width × height inches with `rows × columns` panels, without top and right frames."""
    out = Picture(figsize=(width, height), dpi=120, layout="constrained")
    panels = out.subplots(rows, columns, squeeze=False, **arguments)
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
    return out, panels


def _trace(run: AnalysisRun, split: str | None, recording: str | None) -> RecordingTraces:
    found = {t.recording: t for t in run.traces(run.split(split))}
    recording = recording or next(iter(found), None)
    if recording not in found:
        raise unknown("recording", str(recording), found)
    return found[recording]


def plot_curves(run: AnalysisRun, *names: str) -> Figure:
    """Training curves, one panel per value; by default the loss and the metric that chose the checkpoint."""
    best = str(run.config.get("best_metric") or "").split("/")[-1]
    names = names or tuple(dict.fromkeys(name for name in ("loss", best) if name))
    out, panels = figure(3.6 * len(names), 2.6, 1, len(names))
    table = run.curves()
    for axes, name in zip(panels[0], names, strict=True):
        for k, split in enumerate(table.index.get_level_values("split").unique()):
            if name in table and (values := table.loc[split][name].dropna()).size:
                axes.plot(values.index, values, color=COLOURS[k], label=split)
        axes.set(xlabel="step", title=name)
        if axes.lines:
            axes.legend(frameon=False)
    return out


def plot_trace(run: AnalysisRun, split: str | None = None, recording: str | None = None, begin: float = 0.0,
               end: float = np.inf) -> Figure:  # fmt: skip
    """Prediction against gold of one recording (by default the first); stretches without face or sound are shaded."""
    trace = _trace(run, split, recording)
    keep = (trace.time >= begin) & (trace.time <= end)
    time = trace.time[keep]
    out, panels = figure(9, 4, 2, 1, sharex=True)
    step = float(np.median(np.diff(trace.time)))
    for k, (axes, name) in enumerate(zip(panels[:, 0], DIMENSIONS, strict=True)):
        for i, (a, b) in enumerate(gaps(time, trace.visual_mask[keep], step)):
            axes.axvspan(a, b, color="#999999", alpha=0.3, lw=0, label=None if i else "no face")
        for i, (a, b) in enumerate(gaps(time, trace.audio_mask[keep], step)):
            axes.axvspan(a, b, 0.94, 1, color="#E69F00", alpha=0.5, lw=0, label=None if i else "no sound")
        axes.plot(time, trace.target[keep, k], color=INK, lw=1.2, ls="--", label="gold")
        axes.plot(time, trace.prediction[keep, k], color=COLOURS[k], lw=1.6, label="predicted")
        axes.set_ylabel(name)
        axes.margins(x=0)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    panels[-1, 0].set_xlabel("time (s)")
    out.suptitle(f"{run.name}: {trace.recording}", fontsize=10)
    return out


def plot_gates(run: AnalysisRun, split: str | None = None, recording: str | None = None) -> Figure | None:
    """Weight of each stream over time; None if the fusion has no gates."""
    trace = _trace(run, split, recording)
    if trace.gates is None:
        return None
    out, panels = figure(9, 2.2)
    axes = panels[0, 0]
    labels = configuration.streams(run.config["model"])
    axes.stackplot(trace.time, trace.gates.T, labels=labels, colors=COLOURS[: len(labels)], alpha=0.8)
    for a, b in gaps(trace.time, trace.visual_mask, float(np.median(np.diff(trace.time)))):
        axes.axvspan(a, b, color="#FFFFFF", alpha=0.5, lw=0, hatch="///", ec="#555555")
    axes.set(xlabel="time (s)", ylabel="gate", title=trace.recording)
    axes.margins(x=0)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return out


def plot_delay(run: AnalysisRun, split: str | None = None) -> Figure:
    """Plots `tables.delay_curve`."""
    table = tables.delay_curve(run, split)
    out, panels = figure(4.5, 2.8)
    axes = panels[0, 0]
    for k, name in enumerate(table):
        axes.plot(table.index, table[name], color=COLOURS[k], label=name)
        axes.plot(table[name].idxmax(), table[name].max(), "o", color=COLOURS[k])
    axes.axvline(0, color=INK, lw=0.6)
    axes.set(xlabel="further delay of the prediction (s)", ylabel="CCC")
    axes.legend(frameon=False)
    return out


def plot_confusion(run: AnalysisRun, split: str | None = None) -> Figure:
    """Confusion matrix: shares of the true class in colour, counts in text."""
    table = tables.confusion(run, split)
    share = table.to_numpy() / np.maximum(table.to_numpy().sum(1, keepdims=True), 1)
    out, panels = figure(0.55 * len(table) + 2, 0.5 * len(table) + 1.4)
    axes = panels[0, 0]
    picture = axes.imshow(share, cmap="cividis", vmin=0, vmax=1)
    for i, row in enumerate(table.to_numpy()):
        for j, count in enumerate(row):
            colour = "white" if share[i, j] < 0.6 else "black"
            axes.text(j, i, str(count), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(table)), table.columns, rotation=45, ha="right")
    axes.set_yticks(range(len(table)), table.index)
    axes.set(xlabel="predicted", ylabel="true")
    out.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    return out


def plot_calibration(run: AnalysisRun, split: str | None = None, bins: int = 10) -> Figure:
    """Accuracy against confidence; the area of a point is proportional to its number of examples."""
    table = tables.calibration(run, split, bins)
    out, panels = figure(3.4, 3.2)
    axes = panels[0, 0]
    axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--")
    axes.plot(table["confidence"], table["accuracy"], color=COLOURS[0], lw=1)
    size = 200 * table["count"] / table["count"].max()
    axes.scatter(table["confidence"], table["accuracy"], size, color=COLOURS[0], alpha=0.7, clip_on=False)
    label, probability, _ = tables.labelled(run, split)
    error = metrics.expected_calibration_error(metrics.calibration(label, probability, bins))
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title=f"ECE {error:.3f}")
    return out


def plot_window(window: dict[str, np.ndarray], count: int = 8) -> Figure:
    """Frames and log-mel of a stretch, as returned by `clip_window`."""
    index = np.linspace(0, len(window["time"]) - 1, min(count, len(window["time"]))).round().astype(int)
    titles = [f"{window['time'][i]:.1f} s" + ("" if window["face_mask"][i] else "\nno face") for i in index]
    # A frame without a face is stored black; light grey shows better that it is missing.
    shown = np.where(window["face_mask"][index][:, None, None, None], window["frames"][index], np.uint8(240))
    out, grid = _image_row(shown, titles, below=1.3)
    if len(window["log_mel"]):
        axes = out.add_subplot(grid[1, :])
        extent = (window["time"][0], window["time"][-1], 0, window["log_mel"].shape[1])
        axes.imshow(window["log_mel"].T, aspect="auto", origin="lower", cmap="cividis", extent=extent)
        axes.set(xlabel="time (s)", ylabel="mel band")
    return out


def plot_faces(images: np.ndarray, titles: Sequence[str]) -> Figure:
    """Images uint8 `[N, S, S, 3]` in a row, with titles."""
    return _image_row(images, titles)[0]


def _image_row(images: np.ndarray, titles: Sequence[str], below: float = 0.0) -> tuple[Figure, GridSpec]:
    """A row of images, and the figure's grid, with a second row of `below` inches if that is not 0."""
    out = Picture(figsize=(1.15 * len(images), 1.5 + below), dpi=120, layout="constrained")
    grid = out.add_gridspec(2 if below else 1, len(images))
    for column, (image, title) in enumerate(zip(images, titles, strict=True)):
        axes = out.add_subplot(grid[0, column])
        axes.imshow(image)
        axes.set_axis_off()
        axes.set_title(title, fontsize=7)
    return out, grid
