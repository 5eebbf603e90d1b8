"""`viewer.html`: one page that holds the video, its trace and the data; opens from disk without a server."""

import base64
import html
import importlib.resources
import json
import pathlib
from typing import Any

import numpy as np

from avemo.predict.painter import Layout
from avemo.predict.palette import COLOURS
from avemo.predict.trace import Trace, gaps

TEMPLATE = importlib.resources.files("avemo.predict") / "viewer.html"  # also inside a zipapp
EMBED_BYTES = 48 << 20  # a larger video stays beside the page: browsers are slow with pages above about 100 MB


def payload(trace: Trace, layout: Layout | None) -> dict[str, Any]:
    """The page's data: times, and for each person curves and gaps, rounded to what a screen can show."""
    step = 1 / trace.fps
    people = []
    for person, number in enumerate(trace.persons):
        spread = trace.values.get("spread")
        gates = trace.values.get("gates")
        people.append(
            {
                "number": number,
                "curves": [_rounded(curve) for curve in trace.curves[person].T],
                "spread": None if spread is None else [_rounded(curve) for curve in spread[person].T],
                "gates": None if gates is None else _rounded(gates[person, :, 0]),
                "gaps": gaps(trace.time, trace.face[person], step) if trace.notes.get("sees", True) else [],
                "clip": None if "clip" not in trace.values else _rounded(trace.values["clip"][person]),
            }
        )
    return {
        "title": str(trace.notes.get("input", "")),
        "time": [round(float(t), 4) for t in trace.time],
        "end": round(float(trace.time[-1]) + step, 4),
        "names": list(trace.names),
        "signed": "traces" in trace.values,
        "colours": list(COLOURS),
        "people": people,
        "silence": gaps(trace.time, trace.sound, step) if trace.notes.get("hears", True) else [],
        "picture": None if layout is None else [layout.width, layout.height, layout.total],
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    return [round(v, 4) if np.isfinite(v) else None for v in values.astype(float).tolist()]


def write(trace: Trace, path: pathlib.Path, video: pathlib.Path, layout: Layout | None) -> None:
    """Writes the page of a trace.

    Args:
      trace: the trace to show.
      path: the page.
      video: the overlay (or the sound alone), in the page's folder; embedded in the page up to `EMBED_BYTES`.
      layout: the overlay's layout; None for sound alone.
    """
    kind = "video/mp4" if layout else "audio/mp4"
    source = video.name
    if video.stat().st_size <= EMBED_BYTES:
        source = f"data:{kind};base64,{base64.b64encode(video.read_bytes()).decode()}"
    data = json.dumps(payload(trace, layout), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = TEMPLATE.read_text()
    for mark, text in (
        ("{{title}}", html.escape(str(trace.notes.get("input", "trace")))),
        ("{{data}}", data),
        ("{{source}}", source),
    ):
        page = page.replace(mark, text)
    path.write_text(page)
