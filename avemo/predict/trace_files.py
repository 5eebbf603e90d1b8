"""A trace as files: `trace.csv`, `trace.json`, `trace.png`."""

import csv
import json
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from avemo.predict.palette import COLOURS
from avemo.predict.trace import Trace, gaps

FORMAT_VERSION = 1
NO_TRACES = "none: this run learned which emotion raters would name, without labels of valence and arousal"
_NO_FACE, _NO_SOUND = "#999999", "#E6D27A"  # shades of the picture


def columns(trace: Trace) -> list[str]:
    """Names of the columns of `trace.csv`."""
    names = ["time", "face"]
    if "traces" in trace.values:
        names += ["valence", "arousal"]
        names += ["valence_spread", "arousal_spread"] if "spread" in trace.values else []
    names += ["face_confidence", "x0", "y0", "x1", "y1", "face_present", "sound_present"]
    if "gates" in trace.values:
        names += ["audio_gate", "visual_gate"]
    names += [f"p_{name}" for name in trace.class_names]
    names += [f"p_{name}_spread" for name in trace.class_names] if "spread" in trace.values else []
    return names + [f"{expert}_{name}" for expert, classes in trace.expert_names.items() for name in classes]


def rows(trace: Trace, person: int) -> Iterator[list[Any]]:
    """One person's rows (`person` is an index into `trace.persons`); None for unknown values."""
    values, number = trace.values, trace.persons[person]
    for t in range(len(trace)):
        row: list[Any] = [_number(trace.time[t], 6), number]
        for name in ("traces", "spread"):
            if name in values and "traces" in values:
                row += [_number(v, 6) for v in values[name][person, t]]
        box = trace.box[person, t]
        row += [_number(trace.confidence[person, t], 4), *(_number(v, 5) if box.any() else None for v in box)]
        row += [int(trace.face[person, t]), int(trace.sound[t])]
        if "gates" in values:
            row += [_number(v, 5) for v in values["gates"][person, t]]
        if trace.class_names:
            row += [_number(v, 6) for v in values["probabilities"][person, t]]
            row += [_number(v, 6) for v in values["spread"][person, t]] if "spread" in values else []
        for expert in trace.expert_names:
            row += [_number(v, 6) for v in values[expert][person, t]]
        yield row


def _number(value: Any, digits: int) -> float | None:
    value = float(value)
    return round(value, digits) if math.isfinite(value) else None


def write_csv(trace: Trace, path: pathlib.Path) -> None:
    """Writes one line per frame and person; unknown values are empty."""
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(columns(trace))
        for person in range(len(trace.persons)):
            out.writerows(rows(trace, person))


def summary(trace: Trace, person: int) -> dict[str, Any]:
    """One person's clip in a few numbers: means, share of frames with the face, and the clip's emotion if known."""
    out: dict[str, Any] = {"face": trace.persons[person], "face_seen": round(float(trace.face[person].mean()), 4)}
    if "traces" in trace.values:
        known = trace.values["traces"][person]
        known = known[np.isfinite(known).all(-1)]
        if len(known):
            out |= {"valence": _number(known[:, 0].mean(), 5), "arousal": _number(known[:, 1].mean(), 5)}
    if trace.class_names:
        out |= _clip(trace.class_names, trace.values["clip"][person])
        for expert, names in trace.expert_names.items():
            out[f"{expert}_alone"] = _clip(names, trace.values[f"{expert}_clip"][person])
    return out


def _clip(names: Sequence[str], probability: np.ndarray) -> dict[str, Any]:
    """Probabilities and label of a clip; None where nothing is known."""
    known = np.isfinite(probability).all()
    return {
        "probabilities": {name: _number(p, 6) for name, p in zip(names, probability, strict=True)},
        "label": names[int(probability.argmax())] if known else None,
    }


def document(trace: Trace) -> dict[str, Any]:
    """The trace as JSON: notes, and for each person a summary and the columns of `trace.csv` as lists."""
    names = columns(trace)
    faces = []
    for person in range(len(trace.persons)):
        table = list(rows(trace, person))
        frames = {name: [row[i] for row in table] for i, name in enumerate(names) if name != "face"}
        faces.append({**summary(trace, person), "frames": frames})
    return {
        "version": FORMAT_VERSION,
        **trace.notes,
        "frames": len(trace),
        "duration": _number(trace.time[-1] + 1 / trace.fps, 6),
        "classes": list(trace.class_names),
        **({} if "traces" in trace.values else {"valence_and_arousal": NO_TRACES}),
        "faces": faces,
    }


def write_json(trace: Trace, path: pathlib.Path) -> None:
    """Writes `document` to a file."""
    path.write_text(json.dumps(document(trace), allow_nan=False) + "\n")


def write_png(trace: Trace, path: pathlib.Path) -> None:
    """Draws the trace: one panel per person; stretches without a face or sound are shaded."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and not every call draws
    from matplotlib.figure import Figure

    count = len(trace.persons)
    figure = Figure(figsize=(10, 0.9 + 2.3 * count), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for person, axes in enumerate(panels):
        _draw_curves(axes, trace, person)
        _draw_gaps(axes, trace, person)
        if "traces" in trace.values:
            axes.axhline(0, color="#444444", lw=0.6)
            reach = np.nanmax(np.abs(trace.curves)) if np.isfinite(trace.curves).any() else 1
            axes.set_ylim(-max(1, reach * 1.05), max(1, reach * 1.05))
        else:
            axes.set_ylim(0, 1)
            axes.set_ylabel("probability")
        if count > 1:
            axes.set_title(f"face {trace.persons[person]}", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0)
    panels[-1].set_xlabel("time (s)")
    panels[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    figure.suptitle(str(trace.notes.get("input", "")), fontsize=10)
    figure.savefig(path, format="png")


def _draw_curves(axes: Any, trace: Trace, person: int) -> None:
    for k, name in enumerate(trace.names):
        curve, colour = trace.curves[person, :, k], COLOURS[k % len(COLOURS)]
        axes.plot(trace.time, curve, color=colour, lw=1.6, label=name)
        if "spread" in trace.values:
            spread = trace.values["spread"][person, :, k]
            label = "± 1 SD" if k == 0 else None
            axes.fill_between(trace.time, curve - spread, curve + spread, color=colour, alpha=0.15, lw=0, label=label)


def _draw_gaps(axes: Any, trace: Trace, person: int) -> None:
    """Shades the panel where no face is seen, and its top edge where nothing is heard, if the run uses them."""
    step = 1 / trace.fps
    if trace.notes.get("sees", True):
        for i, (a, b) in enumerate(gaps(trace.time, trace.face[person], step)):
            axes.axvspan(a, b, 0.0, 0.93, color=_NO_FACE, alpha=0.35, lw=0, label=None if i else "no face")
    if trace.notes.get("hears", True):
        for i, (a, b) in enumerate(gaps(trace.time, trace.sound, step)):
            axes.axvspan(a, b, 0.93, 1.0, color=_NO_SOUND, alpha=0.35, lw=0, label=None if i else "no sound")


WRITERS = {"csv": write_csv, "json": write_json, "png": write_png}


def write(trace: Trace, folder: pathlib.Path, files: Sequence[str]) -> None:
    """Writes `trace.csv`, `trace.json` and `trace.png`, those that `files` names, into `folder`."""
    for name, writer in WRITERS.items():
        if name in files:
            writer(trace, folder / f"trace.{name}")
