"""Draws the frames of the overlay: the picture with face boxes, and below it a pad and a scrolling trace.

Nothing but the boxes covers the picture, so the viewer can show that area alone.
"""

import dataclasses

import cv2
import numpy as np

from avemo.predict.palette import COLOURS
from avemo.predict.trace import Trace, gaps

LONGEST_SIDE, SHORTEST_SIDE = 960, 360  # limits of the picture in the overlay, pixels
SPAN = 6.0  # seconds of the scrolling trace
TRAIL = 2.0  # seconds of the trail in the pad
_BACK, _FAINT = (250, 250, 250), (205, 205, 205)
_FRACTION = 4  # sub-pixel bits of a line's points
_TAG = 0.42  # font scale of a face's label
Colour = tuple[int, int, int]


def _rgb(colour: str) -> Colour:
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


_LINES = tuple(_rgb(colour) for colour in COLOURS)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Pixels of the overlay: the picture `width` × `height` on top, a strip of `strip` rows below it."""

    width: int
    height: int
    strip: int

    @classmethod
    def of(cls, width: int, height: int) -> "Layout":
        """The layout for a picture of that size: scaled until it can be read, to even numbers (for 4:2:0)."""
        scale = min(1.0, LONGEST_SIDE / max(width, height))
        scale = max(scale, min(SHORTEST_SIDE / width, 2.0)) if width < SHORTEST_SIDE else scale
        even = lambda n: max(2, 2 * round(n / 2))  # noqa: E731
        width, height = even(width * scale), even(height * scale)
        return cls(width, height, even(min(200, max(96, width // 4))))

    @property
    def total(self) -> int:
        """Height of the overlay."""
        return self.height + self.strip


class Painter:
    """Draws the frames of the overlay."""

    def __init__(self, trace: Trace, layout: Layout):
        self._trace, self._layout = trace, layout
        self._signed = "traces" in trace.values
        self._pad = layout.strip if self._signed else 0
        reach = float(np.nanmax(np.abs(trace.curves))) if np.isfinite(trace.curves).any() else 1.0
        self._low, self._high = (-max(1.0, reach), max(1.0, reach)) if self._signed else (0.0, 1.0)
        self._names, below = self._placed_names()
        self._top = min(below, layout.strip // 2)  # curves keep half of the strip and cover the names that do not fit
        self._blank = self._background()

    def _placed_names(self) -> tuple[list[tuple[str, int, int]], int]:
        """Each curve's name with its left end and base line in the strip, and the first row below them all."""
        left, placed = self._pad + 8, []
        x, y = left, 12
        for name in self._trace.names:
            size = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.36, 1)[0][0]
            if x + size > self._layout.width - 4 and x > left:
                x, y = left, y + 12
            placed.append((name, x, y))
            x += size + 8
        return placed, y + 8

    def _background(self) -> np.ndarray:
        strip, width = self._layout.strip, self._layout.width
        image = np.full((strip, width, 3), _BACK, np.uint8)
        if self._signed:
            middle, margin = strip // 2, 14
            cv2.rectangle(image, (margin, margin), (strip - margin, strip - margin), _FAINT, 1, cv2.LINE_AA)
            cv2.line(image, (margin, middle), (strip - margin, middle), _FAINT, 1)
            cv2.line(image, (middle, margin), (middle, strip - margin), _FAINT, 1)
            _text(image, "V", (strip - 11, middle + 4), _LINES[0])
            _text(image, "A", (middle - 4, 11), _LINES[1])
        for k, (name, x, y) in enumerate(self._names):
            _text(image, name, (x, y), _LINES[k % len(_LINES)])
        cv2.line(image, (self._pad + 8, self._y(0.0)), (width - 8, self._y(0.0)), _FAINT, 1)
        return image

    def _y(self, value: float) -> int:
        top, bottom = self._top, self._layout.strip - 10
        return round(
            bottom - (bottom - top) * (np.clip(value, self._low, self._high) - self._low) / (self._high - self._low)
        )

    def __call__(self, picture: np.ndarray, time: float) -> np.ndarray:
        """The overlay uint8 `[total, width, 3]` of a picture uint8 `[H, W, 3]` at `time` (seconds of the trace)."""
        layout, trace = self._layout, self._trace
        shrink = picture.shape[1] > layout.width
        method = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        if picture.shape[:2] != (layout.height, layout.width):
            picture = cv2.resize(picture, (layout.width, layout.height), interpolation=method)
        out = np.concatenate([picture, self._blank])
        now = max(0, int(np.searchsorted(trace.time, time + 1e-6, side="right")) - 1)
        for person in range(len(trace.persons)):
            self._box(out, person, now)
        self._scroll(out[layout.height :], time)
        if self._signed:
            self._point(out[layout.height :], now, time)
        return out

    def _box(self, out: np.ndarray, person: int, now: int) -> None:
        box = self._trace.box[person, now]
        if not box.any():
            return
        layout = self._layout
        x0, y0, x1, y1 = (round(float(v) * s) for v, s in zip(box, (layout.width, layout.height) * 2, strict=True))
        seen = bool(self._trace.face[person, now])
        colour = _LINES[(2 + person) % len(_LINES)] if seen else (150, 150, 150)
        cv2.rectangle(out, (x0, y0), (x1, min(y1, layout.height - 1)), colour, 2, cv2.LINE_AA)
        label = self._label(person, now)
        if label:
            _tag(out, label, x0, y0, colour, layout)

    def _label(self, person: int, now: int) -> str:
        several = f"{self._trace.persons[person]}: " if len(self._trace.persons) > 1 else ""
        values = self._trace.curves[person, now]
        if not np.isfinite(values).all():
            return several.strip(": ")
        if self._signed:
            return f"{several}V {values[0]:+.2f} A {values[1]:+.2f}"
        return f"{several}{self._trace.class_names[int(values.argmax())]} {values.max():.2f}"

    def _scroll(self, strip: np.ndarray, time: float) -> None:
        """The last `SPAN` seconds, the newest at the right edge."""
        trace, left, right = self._trace, self._pad + 8, self._layout.width - 8
        first, last = np.searchsorted(trace.time, (time - SPAN, time + 1e-6), side="right")
        if last <= first:
            return
        x = right - (time - trace.time[first:last]) / SPAN * (right - left)
        if trace.notes.get("sees", True):
            seen = np.logical_or.reduce(trace.face[:, first:last], axis=0)
            for begin, end in gaps(trace.time[first:last], seen, 1 / trace.fps):
                edges = [round(right - (time - t) / SPAN * (right - left)) for t in (begin, min(end, time))]
                cv2.rectangle(strip, (edges[0], self._top), (edges[1], self._layout.strip - 10), (226, 226, 226), -1)
        scale = self._layout.strip - 10 - self._top
        for person in range(len(trace.persons)):
            values = np.clip(trace.curves[person, first:last], self._low, self._high)
            for k in range(values.shape[1]):
                known = np.isfinite(values[:, k])
                y = self._layout.strip - 10 - scale * (values[known, k] - self._low) / (self._high - self._low)
                _curve(strip, np.stack([x[known], y], -1), _LINES[k % len(_LINES)], 1 + (person == 0))

    def _point(self, strip: np.ndarray, now: int, time: float) -> None:
        trace, size = self._trace, self._layout.strip
        first = int(np.searchsorted(trace.time, time - TRAIL))
        half, reach = size / 2 - 14, self._high
        for person in range(len(trace.persons)):
            values = trace.curves[person, first : now + 1]
            values = values[np.isfinite(values).all(-1)]
            if not len(values):
                continue
            points = size / 2 + half * np.clip(values / reach, -1, 1) * [[1, -1]]
            colour = _LINES[(2 + person) % len(_LINES)]
            _curve(strip, points, _pale(colour), 1)
            cv2.circle(strip, tuple(round(float(v)) for v in points[-1]), 5, colour, -1, cv2.LINE_AA)


def _pale(colour: Colour) -> Colour:
    red, green, blue = ((c + 255) // 2 for c in colour)
    return red, green, blue


def _text(image: np.ndarray, text: str, at: tuple[int, int], colour: Colour, scale: float = 0.36) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)


def _tag(image: np.ndarray, text: str, x: int, y: int, colour: Colour, layout: Layout) -> None:
    """Draws a label on a filled plate above the corner (x, y) of a box, or inside the box if there is no room above."""
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _TAG, 1)
    plate = (width + 8, height + 9)
    left = min(max(0, x - 1), max(0, layout.width - plate[0]))
    top = y - plate[1] if y >= plate[1] else max(0, y)
    cv2.rectangle(image, (left, top), (left + plate[0], top + plate[1]), colour, -1)
    ink = (255, 255, 255) if np.dot(colour, (0.30, 0.59, 0.11)) < 140 else (0, 0, 0)
    _text(image, text, (left + 4, top + height + 4), ink, _TAG)


def _curve(image: np.ndarray, points: np.ndarray, colour: Colour, width: int) -> None:
    """Draws a line through `points` float `[n, 2]`, with sub-pixel precision."""
    fixed = np.round(points * (1 << _FRACTION)).astype(np.int32)
    cv2.polylines(image, [fixed[:, None]], False, colour, width, cv2.LINE_AA, _FRACTION)
