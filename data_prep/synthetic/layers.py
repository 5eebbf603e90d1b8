"""The parts of a head that never move: skin with its light and shade, hair, ears, nose, beard."""

from collections.abc import Sequence

import cv2
import numpy as np

from data_prep.synthetic.identity import Identity, ellipse

EXTENT = (3.0, 1.42)  # canvas side, and height of the face's centre in it, in half face heights
COARSE = 80  # side at which smooth maps are computed before they are enlarged, which is cheaper


class Canvas:
    """A square picture addressed in half face heights from the centre of the face; draws with subpixel edges."""

    def __init__(self, unit: float):
        self.unit = unit
        self.side = int(np.ceil(EXTENT[0] * unit))
        self.centre = np.array([self.side / 2, EXTENT[1] * unit])

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Returns OpenCV's fixed-point (4 bits) coordinates of `points` `[N, 2]`."""
        return np.rint((points * self.unit + self.centre) * 16).astype(np.int32)

    def fill(self, image: np.ndarray, points: np.ndarray, colour: float | Sequence[float]) -> None:
        """Fills a polygon."""
        cv2.fillPoly(image, [self.pixels(points)], colour, cv2.LINE_AA, 4)

    def line(
        self, image: np.ndarray, points: np.ndarray, colour: Sequence[float], width: float, closed: bool = False
    ) -> None:
        """Draws a line of `width` half face heights (at least one pixel)."""
        cv2.polylines(image, [self.pixels(points)], closed, colour, max(1, round(width * self.unit)), cv2.LINE_AA, 4)

    def grid(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns x and y of the canvas sampled `[side, side]`."""
        axis = (np.arange(side, dtype=np.float32) + 0.5) * (self.side / side)
        return np.meshgrid((axis - self.centre[0]) / self.unit, (axis - self.centre[1]) / self.unit)


def _shading(who: Identity, canvas: Canvas) -> np.ndarray:
    """Returns how much light each point of the face sends back, relative to its colour, float32 `[COARSE, COARSE]`.

    It is a Lambertian egg under one lamp, with Gaussian hollows and ridges where a skull has them.
    """
    x, y = canvas.grid(COARSE)
    u, v = x / (1.06 * who.width), y / 1.12
    depth = np.sqrt(np.maximum(1 - u**2 - v**2, 0.02))
    lambert = np.maximum(u * who.light[0] + v * who.light[1] + depth * who.light[2], 0)
    shade = 0.50 + 0.56 * lambert

    def bump(cx: float, cy: float, rx: float, ry: float, strength: float) -> None:
        nonlocal shade
        shade = shade + strength * np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)

    eye, nose_tip = who.eye_height, who.eye_height + who.nose_length
    for s in (-1, 1):
        bump(s * who.eye_gap, eye - 0.02, 0.20, 0.13, -0.22)  # sockets
        bump(s * 0.13, eye - 0.01, 0.07, 0.13, -0.10)  # inner corners, beside the bridge
        bump(s * (who.eye_gap + 0.04), eye + 0.30, 0.20, 0.16, 0.10)  # cheekbones
        bump(s * 0.62, 0.34, 0.14, 0.30, -0.10)  # hollow of the cheek
        bump(s * (who.nose_width + 0.05), nose_tip - 0.03, 0.05, 0.10, -0.12)  # beside the wings
        bump(s * 0.09, (eye + nose_tip) / 2, 0.035, 0.20, -0.10 if s * who.light[0] < 0 else -0.03)  # flank
    bump(0, eye + 0.06, 0.055, 0.20, 0.17)  # bridge
    bump(0, nose_tip - 0.05, 0.07, 0.07, 0.15)  # tip
    bump(0, nose_tip + 0.07, 0.13, 0.035, -0.20)  # under the nose
    bump(0, who.mouth_height + 0.17, 0.16, 0.045, -0.12)  # under the lip
    bump(0, 0.86, 0.16, 0.10, 0.07)  # chin
    bump(0, -0.62, 0.42, 0.20, 0.08)  # forehead
    noise = np.random.default_rng(who.texture).standard_normal((COARSE, COARSE)).astype(np.float32)
    shade = shade + 0.05 * cv2.GaussianBlur(noise, (0, 0), 1.2) + 0.06 * cv2.GaussianBlur(noise, (0, 0), 4)
    return shade.astype(np.float32)


def _hair_mass(who: Identity) -> np.ndarray:
    """Returns the contour of the hair behind the face."""
    grow = {"short": 0.13, "long": 0.19, "bun": 0.10, "bald": 0.0}[who.hair_style]
    if who.hair_style == "long":
        half = who.width + grow
        theta = np.linspace(np.pi, 2 * np.pi, 24)
        top = np.stack([half * np.cos(theta), -0.12 + (1 + 0.62 * grow - 0.02) * np.sin(theta)], axis=1)
        tail = np.array([[half * 1.04, 0.5], [half * 0.98, 1.05], [half * 0.62, 1.3]])
        tail = np.concatenate([tail, (tail * [-1, 1])[::-1]])
        return np.concatenate([top, tail])
    return ellipse(0, -0.25, who.width + grow, 0.87 + grow)


def _over(top: np.ndarray, below: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Returns `top` laid over `below` with opacity `alpha`, uint8 RGB."""
    return cv2.blendLinear(top, below, alpha, 1 - alpha)


class Layers:
    """The still parts of a head at one size: `face` and `back` (turned away), uint8 RGB, and `alpha` float32 0–1."""

    def __init__(self, who: Identity, unit: float):
        self.who, self.canvas = who, Canvas(unit)
        self._x, self._y = self.canvas.grid(COARSE)
        shade = _shading(who, self.canvas)
        skin = self._enlarge(self._complexion() * shade[..., None])
        hair = self._hair()
        bald = who.hair_style == "bald"
        head = self._mask(who.outline())
        ears = self._mask(*(ellipse(s * (who.width + 0.015), 0.02, 0.085, 0.19, s * 0.12) for s in (-1, 1)))
        picture = cv2.convertScaleAbs(skin if bald else hair, alpha=0.8 if bald else 0.72)
        picture = _over(cv2.convertScaleAbs(skin, alpha=0.9), picture, ears)
        picture = _over(skin, picture, head)
        if who.beard:
            picture = _over(cv2.convertScaleAbs(hair, alpha=0.8), picture, self._beard() * head)
        self.alpha = np.maximum(head, ears)
        dome = 0.62 + 0.4 * np.sqrt(np.maximum(1 - self._x**2 - (self._y / 1.35) ** 2, 0))
        if bald:
            self.back = self._enlarge(who.skin * 0.85 * dome[..., None])
        else:
            mass = [_hair_mass(who)]
            if who.hair_style == "bun":
                mass.append(ellipse(0.1, -1.18, 0.24, 0.2))
            front = self._mask(*self._front())
            picture = _over(hair, picture, front)
            self.alpha = np.maximum(self.alpha, np.maximum(self._mask(*mass), front))
            self.back = cv2.multiply(hair, cv2.merge([self._enlarge(255 * dome)] * 3), scale=1 / 255)
        self.face = picture
        self._nose()

    def _enlarge(self, coarse: np.ndarray) -> np.ndarray:
        """Returns a smooth map 0–255 at full size, uint8."""
        fine = cv2.resize(
            coarse.astype(np.float32), (self.canvas.side, self.canvas.side), interpolation=cv2.INTER_LINEAR
        )
        return cv2.convertScaleAbs(fine)

    def _mask(self, *shapes: np.ndarray) -> np.ndarray:
        """Returns the union of polygons with soft edges, float32 0–1."""
        out = np.zeros((self.canvas.side, self.canvas.side), np.uint8)
        for shape in shapes:
            self.canvas.fill(out, shape, 255)
        return out.astype(np.float32) / 255

    def _complexion(self) -> np.ndarray:
        """Returns the skin's own colour, coarse: redder on cheeks and nose."""
        who, x, y = self.who, self._x, self._y
        red = np.exp(-(((x / 0.12) ** 2) + ((y - who.eye_height - who.nose_length) / 0.14) ** 2)) * 0.5
        for s in (-1, 1):
            red = red + np.exp(-(((x - s * 0.43) / 0.22) ** 2) - ((y - 0.22) / 0.2) ** 2)
        return who.skin + red[..., None] * np.array([6.0, -14.0, -12.0])

    def _hair(self) -> np.ndarray:
        """Returns a full picture of hair, strands with a gloss, uint8 RGB."""
        side, who = self.canvas.side, self.who
        gloss = 0.78 + 0.45 * np.exp(-(((self._x - 0.5 * who.light[0]) / 0.6) ** 2) - ((self._y + 0.85) / 0.28) ** 2)
        noise = np.random.default_rng(who.texture + 1).standard_normal((1, side)).astype(np.float32)
        row = 128 * (1 + 0.12 * cv2.GaussianBlur(noise, (0, 0), 0.9, borderType=cv2.BORDER_REFLECT))
        strands = cv2.merge([np.repeat(cv2.convertScaleAbs(row), side, axis=0)] * 3)
        return cv2.multiply(self._enlarge(np.minimum(who.hair * gloss[..., None], 255)), strands, scale=1 / 128)

    def _front(self) -> list[np.ndarray]:
        """Returns the contours of the hair over the forehead."""
        who = self.who
        edge = np.linspace(-1, 1, 25)
        line = -0.80 + who.fringe * np.exp(-(((edge - who.parting) / 0.55) ** 2)) + 0.42 * np.abs(edge) ** 3.2
        half = who.width * 1.02
        hairline = np.stack([edge * half, line], axis=1)
        grow = 0.13 if who.hair_style != "bun" else 0.08
        theta = np.linspace(0.06, -np.pi - 0.06, 25)
        crown = np.stack([(half + grow * 0.6) * np.cos(theta), -0.33 + (0.72 + grow) * np.sin(theta)], axis=1)
        shapes = [np.concatenate([hairline, crown])]
        if who.hair_style == "long":
            for s in (-1, 1):
                inner = np.array([[0.98, -0.45], [0.90, 0.05], [0.93, 0.55], [0.86, 1.0]]) * [s * who.width, 1]
                outer = np.array([[1.18, 1.12], [1.30, 0.6], [1.26, 0.0], [1.16, -0.5]]) * [s * who.width, 1]
                shapes.append(np.concatenate([inner, outer]))
        return shapes

    def _beard(self) -> np.ndarray:
        """Returns how dense the beard is, float32 0–1."""
        who, x, y = self.who, self._x, self._y
        low = 1 / (1 + np.exp(-(y - 0.36 - 0.25 * (1 - np.minimum(np.abs(x) / 0.6, 1))) / 0.05))
        mouth = np.exp(-((x / (who.mouth_width * 1.15)) ** 4) - ((y - who.mouth_height) / 0.13) ** 4)
        moustache = np.exp(-((x / 0.3) ** 4) - ((y - (who.mouth_height - 0.13)) / 0.045) ** 2)
        weight = np.clip(low * (1 - mouth) + moustache, 0, 1) * 0.75 * who.beard
        return self._enlarge(255 * weight).astype(np.float32) / 255

    def _nose(self) -> None:
        """Draws the nose's few hard edges: nostrils and wings."""
        who, base = self.who, self.who.eye_height + self.who.nose_length
        dark = tuple(float(c) for c in who.skin * [0.42, 0.32, 0.30])
        soft = self.face.copy()
        for s in (-1, 1):
            self.canvas.fill(soft, ellipse(s * 0.062, base + 0.035, 0.034, 0.02, s * -0.3), dark)
            theta = np.linspace(-0.9, 1.2, 8)
            wing = np.stack([s * (0.05 + (who.nose_width - 0.05) * np.cos(theta)), base + 0.07 * np.sin(theta)], axis=1)
            self.canvas.line(soft, wing, dark, 0.014)
        cv2.addWeighted(soft, 0.7, self.face, 0.3, 0, dst=self.face)
