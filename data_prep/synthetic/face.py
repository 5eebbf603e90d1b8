"""Draws an expression onto a head: eyes, brows, mouth and folds, in about half a millisecond at video size."""

from collections.abc import Sequence

import cv2
import numpy as np

from data_prep.synthetic.expression import INDEX
from data_prep.synthetic.identity import ellipse
from data_prep.synthetic.layers import Layers

Colour = tuple[float, ...]  # RGB, 0-255
_X = np.linspace(-1, 1, 15)  # abscissae of every lid, lip and brow
_ARCH = 1 - _X**2
_LID = _ARCH**0.75
_LIMITS = np.array([[-1.25, 1.25]] * len(INDEX))
_LIMITS[[INDEX[name] for name in ("mouth_open", "lip_press", "lip_raise", "brow_knit", "squint", "nose_wrinkle")]] = (
    0,
    1.2,
)


def _rgb(colour: np.ndarray, gain: float = 1.0) -> Colour:
    return tuple(float(min(255.0, max(0.0, c * gain))) for c in colour)


def _band(x: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Returns the outline of the strip between two lines over the same abscissae."""
    strip = np.empty((2 * len(x), 2))
    strip[: len(x), 0], strip[len(x) :, 0] = x, x[::-1]
    strip[: len(x), 1], strip[len(x) :, 1] = upper, lower[::-1]
    return strip


class Pose:
    """Everything about a face that changes from frame to frame besides its expression.

    Attributes:
      speech: how far speaking opens the mouth, 0–1.
      rounding: how far the vowel rounds the lips, −1 (spread) to 1 (rounded).
      blink: 0 open, 1 shut.
      gaze: direction of the eyes, (x, y) in −1…1.
      turn: of the head in radians; small turns only shift the features.
    """

    __slots__ = ("blink", "gaze", "rounding", "speech", "turn")

    def __init__(
        self,
        speech: float = 0.0,
        rounding: float = 0.0,
        blink: float = 0.0,
        gaze: Sequence[float] | np.ndarray = (0.0, 0.0),
        turn: float = 0.0,
    ) -> None:
        self.speech, self.rounding, self.blink, self.gaze, self.turn = speech, rounding, blink, gaze, turn


class DrawnFace:
    """One head that can be drawn with any expression."""

    def __init__(self, layers: Layers):
        self.layers, self.who, self.canvas = layers, layers.who, layers.canvas
        who = self.who
        self._crease = _rgb(who.skin * [0.66, 0.56, 0.52])
        self._lash = _rgb(np.minimum(who.hair, 70) * [0.5, 0.45, 0.45])
        self._brow = _rgb(np.minimum(who.hair, who.skin * 0.62) * 0.85)
        self._sclera = _rgb(np.array([232, 228, 222]) * (0.82 + 0.12 * who.skin[0] / 255))
        self._upper_lip, self._lower_lip = _rgb(who.lip, 0.86), _rgb(who.lip)
        self._gleam = _rgb(who.lip * 0.6 + 0.4 * who.skin, 1.12)

    def draw(self, expression: np.ndarray, pose: Pose) -> np.ndarray:
        """Returns the head's picture, uint8 RGB `[side, side, 3]`, to be blended by `layers.alpha`."""
        move = self._moves(expression)
        image = self.layers.face.copy()
        shift = 0.16 * np.sin(pose.turn)
        self._folds(image, move, shift)
        for side in (-1, 1):
            self._eye(image, move, pose, side, shift)
        for side in (-1, 1):
            self._eyebrow(image, move, side, shift)
        self._mouth(image, move, pose, shift)
        if self.who.glasses:
            self._glasses(image, shift)
        return image

    def _soft_line(self, image: np.ndarray, points: np.ndarray, colour: Colour, width: float, strength: float) -> None:
        """Draws a line of opacity `strength`."""
        if strength < 0.04:
            return
        # Skin changes little along a fold, so mixing with the colour under its middle passes for transparency.
        x, y = (points[len(points) // 2] * self.canvas.unit + self.canvas.centre).astype(int)
        under, strength = image[y, x].tolist(), min(strength, 1.0)
        mixed = [strength * c + (1 - strength) * u for c, u in zip(colour, under, strict=True)]
        self.canvas.line(image, points, mixed, width)

    def _folds(self, image: np.ndarray, move: np.ndarray, shift: float) -> None:
        """Draws smile and sneer folds, frown lines, forehead lines and crow's feet."""
        who = self.who
        wing = who.eye_height + who.nose_length
        smile = (
            max(0.0, move[INDEX["mouth_curve"]]) * 0.45 + 0.25 * move[INDEX["squint"]] + 0.5 * move[INDEX["lip_raise"]]
        )
        t = np.linspace(0, 1, 7)
        between = np.array([shift, who.eye_height])
        for s in (-1, 1):
            x = s * (who.nose_width + 0.035 + 0.24 * t + 0.05 * np.sin(np.pi * t)) + shift
            fold = np.stack([x, wing - 0.04 + 0.27 * t], axis=1)
            skew = 0.35 * move[INDEX["mouth_skew"]] if s > 0 else 0.0
            self._soft_line(image, fold, self._crease, 0.022, 0.12 + 0.55 * max(0.0, smile + skew))
            inner = 0.065 - 0.012 * move[INDEX["brow_knit"]]
            frown = np.array([[s * inner, -0.27], [s * (inner - 0.012), -0.11]])
            self._soft_line(image, between + frown, self._crease, 0.018, 0.75 * move[INDEX["brow_knit"]])
            sneer = np.array([[s * 0.05, 0.10], [s * 0.10, 0.19]])
            self._soft_line(image, between + sneer, self._crease, 0.018, 0.8 * move[INDEX["nose_wrinkle"]])
        raised = move[INDEX["brow_raise"]]
        if raised > 0.25:
            for level in (0.0, 0.09):
                line = np.stack([0.36 * _X + shift, -0.60 + level - 0.03 * _ARCH], axis=1)
                self._soft_line(image, line, self._crease, 0.016, 0.45 * (raised - 0.25))

    def _lids(
        self, move: np.ndarray, pose: Pose, side: int, shift: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Returns an eye's centre `[2]`, its upper and lower lid `[15, 2]` about it, and how far it is open."""
        who = self.who
        centre = np.array([side * who.eye_gap + shift * 0.8, who.eye_height])
        aperture = (0.62 + 0.42 * move[INDEX["eye_open"]] - 0.22 * move[INDEX["squint"]]) * (1 - pose.blink)
        upper = max(0.0, 0.105 * aperture)
        lower = max(0.0, (0.052 + 0.012 * move[INDEX["eye_open"]] - 0.03 * move[INDEX["squint"]]) * (1 - pose.blink))
        x, slope = who.eye_size * _X, -0.018 * side * _X  # outer corner a little higher
        lid = np.stack([x, slope - upper * _LID + 0.02 * pose.blink * _ARCH], axis=1)
        base = np.stack([x, slope + max(lower, 0.02 * pose.blink) * _ARCH], axis=1)
        return centre, lid, base, aperture

    def landmarks(self, expression: np.ndarray, pose: Pose) -> np.ndarray:
        """Returns the usual 68 points (iBUG 300-W order) in half face heights, float64 `[68, 2]`."""
        who = self.who
        move, shift = self._moves(expression), 0.16 * np.sin(pose.turn)
        contour = who.outline()
        height = np.linspace(-0.05, 1.0, 9)
        half = np.interp(height, contour[:33, 1], contour[:33, 0])
        jaw = np.concatenate([np.stack([-half, height], 1), np.stack([half, height], 1)[-2::-1]])
        points = [jaw]
        for side in (-1, 1):
            x, y, _ = self._brow_line(move, side, shift)
            points.append(np.stack([x, y], 1)[[0, 4, 7, 10, 14]])
        base = who.eye_height + who.nose_length
        bridge = np.linspace(who.eye_height, base - 0.04, 4)
        points.append(np.stack([np.zeros(4), bridge], 1))
        wings = np.linspace(-0.8, 0.8, 5) * who.nose_width
        points.append(np.stack([wings, base + 0.05 - np.abs(wings) * 0.3], 1))
        for side in (-1, 1):
            centre, lid, under, _ = self._lids(move, pose, side, shift)
            points += [centre + lid[[0, 5, 9, 14]], centre + under[[9, 5]]]
        x, upper, top, _, bottom, lower = self._lips(move, pose, shift)
        for line, columns in ((upper, [0, 3, 5, 7, 9, 11, 14]), (lower, [11, 9, 7, 5, 3])):
            points.append(np.stack([x, line], 1)[columns])
        for line, columns in ((top, [1, 5, 7, 9, 13]), (bottom, [9, 7, 5])):
            points.append(np.stack([x, line], 1)[columns])
        return np.concatenate(points)

    def _moves(self, expression: np.ndarray) -> np.ndarray:
        """Adds the expression to this person's face at rest, limited to what can be drawn."""
        return np.clip(expression + self.who.rest, _LIMITS[:, 0], _LIMITS[:, 1])

    def _eye(self, image: np.ndarray, move: np.ndarray, pose: Pose, side: int, shift: float) -> None:
        """Draws one eye: a ball seen through the opening between two lids."""
        who, unit = self.who, self.canvas.unit
        centre, lid, base, aperture = self._lids(move, pose, side, shift)
        half = who.eye_size
        if base[7, 1] - lid[7, 1] > 0.02:
            spots = centre * unit + self.canvas.centre
            left, top = (spots - (half * unit + 3, 0.17 * unit + 3)).astype(int)
            right, bottom = (spots + np.array([half * unit + 4, 0.11 * unit + 4])).astype(int)
            window = image[top:bottom, left:right]
            ball = np.empty_like(window)
            ball[:] = self._sclera
            hole = np.zeros(window.shape[:2], np.uint8)
            local = (spots - (left, top)) / unit
            opening = np.concatenate([lid, base[::-1]])
            cv2.fillPoly(hole, [np.rint((opening + local) * unit * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
            look = local + np.array([0.045 * pose.gaze[0] + 0.2 * shift, -0.018 + 0.02 * pose.gaze[1]])
            at = [int(v) for v in np.rint(look * unit * 16)]
            for radius, colour in ((0.083, _rgb(who.iris, 0.55)), (0.070, _rgb(who.iris)), (0.036, (12.0, 10.0, 10.0))):
                cv2.circle(ball, at, int(radius * unit * 16), colour, -1, cv2.LINE_AA, 4)
            glint = [int(v) for v in np.rint((look + np.array([0.025 * np.sign(who.light[0]), -0.03])) * unit * 16)]
            cv2.circle(ball, glint, int(0.015 * unit * 16), (250.0, 250.0, 250.0), -1, cv2.LINE_AA, 4)
            shade = (lid + local + [0, 0.012]) * unit  # the upper lid's shadow on the ball
            cv2.polylines(
                ball,
                [np.rint(shade * 16).astype(np.int32)],
                False,
                (120.0, 105.0, 100.0),
                max(1, round(0.03 * unit)),
                cv2.LINE_AA,
                4,
            )
            cv2.copyTo(ball, hole, window)  # the lids' lines hide the hard edge
        self._soft_line(image, centre + lid + [0, -0.055 - 0.02 * aperture], self._crease, 0.016, 0.55)
        self._soft_line(image, centre + base + [0, 0.012], self._crease, 0.014, 0.55)
        self._soft_line(image, centre + base + [0, 0.075], self._crease, 0.02, 0.12 + 0.4 * move[INDEX["squint"]])
        self._soft_line(image, centre + lid, self._lash, 0.034, 0.9)

    def _eyebrow(self, image: np.ndarray, move: np.ndarray, side: int, shift: float) -> None:
        """Draws one eyebrow: a tapered arch."""
        x, y, thick = self._brow_line(move, side, shift)
        self.canvas.fill(image, _band(x, y - thick, y + thick), self._brow)

    def _brow_line(self, move: np.ndarray, side: int, shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns a brow's abscissae, the line along its middle and half its thickness, `[15]` each."""
        who = self.who
        raise_, slant = move[INDEX["brow_raise"]], move[INDEX["brow_slant"]]
        lift = 0.085 * raise_ - 0.03 * move[INDEX["nose_wrinkle"]] + 0.05 * side * 0.5 * move[INDEX["mouth_skew"]]
        inner = (1 - _X * side) / 2 if side > 0 else (1 + _X) / 2  # 1 at the nose, 0 at the temple
        x = side * who.eye_gap + 0.02 * side + 0.215 * _X - side * inner * 0.05 * move[INDEX["brow_knit"]] + shift * 0.8
        arch = 0.045 * (1 - ((inner - 0.38) / 0.62) ** 2)
        y = who.eye_height - who.brow_height - lift - arch - who.brow_tilt * (inner - 0.5)
        y = y - slant * 0.125 * (inner - 0.38) + 0.03 * move[INDEX["brow_knit"]] * inner
        thick = who.brow_weight * (0.25 + 0.75 * np.minimum(1, 1.8 * inner)) * np.minimum(1, 6 * (1.02 - inner)) * 0.5
        return x, y, thick

    def _mouth(self, image: np.ndarray, move: np.ndarray, pose: Pose, shift: float) -> None:
        """Draws the lips, the dark between them, teeth and tongue."""
        x, upper, top, middle, bottom, lower = self._lips(move, pose, shift)
        press = 1 - 0.55 * move[INDEX["lip_press"]]
        self.canvas.fill(image, _band(x, upper, middle + 0.01), self._upper_lip)
        self.canvas.fill(image, _band(x, middle - 0.01, lower), self._lower_lip)
        inner = slice(4, 11)
        gleam = np.stack([x, bottom * 0.45 + lower * 0.55], 1)[inner]
        self._soft_line(image, gleam, self._gleam, 0.03 * press, 0.5)
        gap = float((bottom - top)[7])
        if gap > 0.03:
            self.canvas.fill(image, _band(x, top, bottom), (62.0, 22.0, 24.0))
            if gap > 0.12:
                tongue = np.maximum(bottom - 0.45 * (bottom - top) * _ARCH, top)
                self.canvas.fill(image, _band(x, tongue, bottom), (150.0, 66.0, 66.0))
            teeth = top + np.minimum(0.085, 0.55 * (bottom - top)) * (np.abs(_X) < 0.8)
            self.canvas.fill(image, _band(x, top, teeth), (226.0, 220.0, 208.0))
            self._soft_line(image, np.stack([x, top], 1), (70.0, 26.0, 28.0), 0.014, 0.8)
        else:
            self._soft_line(image, np.stack([x, (top + bottom) / 2], 1), (84.0, 34.0, 32.0), 0.024, 0.85)
        for end, s in ((0, -1), (14, 1)):  # corners
            corner = np.array(
                [
                    [x[end] - s * 0.015, middle[end]],
                    [x[end] + s * 0.02, middle[end] - 0.02 * move[INDEX["mouth_curve"]]],
                ]
            )
            self._soft_line(image, corner, self._crease, 0.03, 0.6)

    def _lips(self, move: np.ndarray, pose: Pose, shift: float) -> tuple[np.ndarray, ...]:
        """Returns the mouth's abscissae and its lines downwards: outer, inner, middle, inner, outer; `[15]` each."""
        who = self.who
        curve, skew = move[INDEX["mouth_curve"]], move[INDEX["mouth_skew"]]
        opened = min(1.0, move[INDEX["mouth_open"]] + 0.55 * pose.speech)
        wide = (
            1
            + 0.22 * move[INDEX["mouth_width"]]
            + 0.10 * max(curve, 0)
            - 0.16 * pose.rounding * min(1, 2 * pose.speech)
        )
        press = 1 - 0.55 * move[INDEX["lip_press"]]
        half = who.mouth_width * wide * (1 - 0.06 * opened)
        arch = np.maximum(_ARCH, 0)
        middle = who.mouth_height + curve * 0.13 * (arch - 0.55) - 0.12 * skew * np.maximum(_X, 0) ** 1.5
        x = half * _X + shift + 0.04 * skew * np.maximum(_X, 0)
        lifted = 0.055 * move[INDEX["lip_raise"]] * arch
        top = middle - (0.035 * opened) * arch - lifted
        bottom = middle + (0.30 * opened + 0.02 * move[INDEX["lip_raise"]]) * arch**0.7
        bow = arch**0.7 * (1 + 0.3 * np.exp(-(((np.abs(_X) - 0.28) / 0.16) ** 2))) - 0.25 * np.exp(-((_X / 0.1) ** 2))
        upper = top - 0.062 * who.lip_weight * press * np.maximum(bow, 0)
        lower = bottom + 0.088 * who.lip_weight * press * (1 - 0.2 * opened) * arch**0.6

        return x, upper, top, middle, bottom, lower

    def _glasses(self, image: np.ndarray, shift: float) -> None:
        who = self.who
        for s in (-1, 1):
            rim = ellipse(s * who.eye_gap + shift, who.eye_height + 0.03, 0.25, 0.20)
            self._soft_line(image, np.concatenate([rim, rim[:1]]), (34.0, 30.0, 30.0), 0.024, 0.85)
            arm = np.array(
                [[s * (who.eye_gap + 0.25) + shift, who.eye_height], [s * who.width * 1.01, who.eye_height - 0.04]]
            )
            self._soft_line(image, arm, (34.0, 30.0, 30.0), 0.024, 0.85)
        bridge = np.stack([0.1 * _X + shift, who.eye_height + 0.0 - 0.02 * _ARCH], axis=1)
        self._soft_line(image, bridge, (34.0, 30.0, 30.0), 0.024, 0.85)
