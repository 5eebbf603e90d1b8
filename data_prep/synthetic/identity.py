"""Who is drawn: the shape, colours and habits of one head, and the layers of it that never move."""

import dataclasses

import cv2
import numpy as np

EXTENT = (3.0, 1.42)  # canvas side, and height of the face's centre in it, in half face heights
_SKIN = np.array([[255, 224, 196], [241, 194, 158], [224, 172, 130], [198, 140, 98], [160, 106, 70], [116, 76, 52]])
_HAIR = np.array(
    [[30, 24, 22], [62, 42, 30], [104, 70, 44], [160, 118, 66], [206, 170, 110], [142, 60, 34], [150, 148, 146]]
)
_IRIS = np.array([[70, 46, 30], [88, 64, 38], [74, 98, 122], [84, 108, 78], [52, 34, 24]])


@dataclasses.dataclass(frozen=True)
class Identity:
    """One person; lengths in half face heights (chin to hairline is 2), colours RGB 0–255, angles in radians."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lip: np.ndarray
    cloth: np.ndarray
    width: float  # half width of the face
    jaw: float  # 0 round … 0.4 pointed
    eye_gap: float  # half distance between the eyes
    eye_size: float
    eye_height: float
    brow_weight: float
    brow_height: float
    brow_tilt: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_height: float
    lip_weight: float
    hair_style: str  # "short", "long", "bun", "bald"
    fringe: float  # how far hair falls into the forehead
    parting: float
    beard: float  # 0 none … 1 full
    glasses: bool
    light: np.ndarray  # unit vector towards the light
    texture: int  # seed of the skin's unevenness
    rest: np.ndarray  # the face this person wears when feeling nothing, an offset in expression space

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Identity":
        """Draws a person."""
        tone = rng.uniform(0, len(_SKIN) - 1.01)
        skin = _SKIN[int(tone)] * (1 - tone % 1) + _SKIN[int(tone) + 1] * (tone % 1)
        skin = np.clip(skin + rng.normal(0, 5, 3), 20, 255)
        dark = tone > 3.2
        hair = _HAIR[rng.integers(0, 2 if dark else len(_HAIR))] * rng.uniform(0.8, 1.15)
        masculine = rng.random() < 0.5
        style = (
            rng.choice(["short", "bald"], p=[0.88, 0.12])
            if masculine
            else rng.choice(["long", "bun", "short"], p=[0.6, 0.25, 0.15])
        )
        light = np.array([rng.uniform(-0.45, 0.45), rng.uniform(-0.55, -0.15), 1.0])
        return cls(
            skin=skin,
            hair=np.clip(hair, 10, 245),
            iris=_IRIS[rng.integers(0, len(_IRIS))] * rng.uniform(0.85, 1.15),
            lip=np.clip(
                skin * [0.84, 0.58, 0.56] + rng.normal(0, 4, 3) + ([0, 0, 0] if masculine else [10, -12, -4]), 10, 245
            ),
            cloth=rng.uniform(40, 200, 3),
            width=rng.uniform(0.70, 0.80),
            jaw=rng.uniform(0.05, 0.22) if masculine else rng.uniform(0.14, 0.32),
            eye_gap=rng.uniform(0.305, 0.345),
            eye_size=rng.uniform(0.155, 0.185),
            eye_height=rng.uniform(-0.19, -0.13),
            brow_weight=rng.uniform(0.055, 0.085) if masculine else rng.uniform(0.035, 0.06),
            brow_height=rng.uniform(0.205, 0.245),
            brow_tilt=rng.normal(0, 0.02),
            nose_length=rng.uniform(0.40, 0.48),
            nose_width=rng.uniform(0.12, 0.17),
            mouth_width=rng.uniform(0.25, 0.30),
            mouth_height=rng.uniform(0.52, 0.57),
            lip_weight=rng.uniform(0.8, 1.25),
            hair_style=str(style),
            fringe=rng.uniform(0.0, 0.22),
            parting=rng.uniform(-0.5, 0.5),
            beard=float(masculine and rng.random() < 0.35) * rng.uniform(0.4, 1.0),
            glasses=bool(rng.random() < 0.22),
            light=light / np.linalg.norm(light),
            texture=int(rng.integers(1 << 31)),
            rest=rng.normal(0, 0.10, 12) * np.array([1, 0.3, 1, 0.5, 0.3, 0.6, 1.2, 1.2, 0.5, 1.2, 0.5, 0.3]),
        )

    def outline(self, grow: float = 0.0) -> np.ndarray:
        """Returns the contour of the face, float64 `[N, 2]` (x, y), clockwise from the top."""
        height = np.linspace(-1, 1, 33)
        half = (
            self.width
            * np.sqrt(np.maximum(1 - np.abs(height) ** 2.5, 0))
            * (1 - self.jaw * np.maximum(height, 0) ** 1.6)
        )
        right = np.stack([half, height], axis=1)
        left = np.stack([-half, height], axis=1)[::-1]
        return np.concatenate([right, left]) * (1 + grow)


class Canvas:
    """A square picture addressed in half face heights from the centre of the face; draws with subpixel edges."""

    def __init__(self, unit: float):
        self.unit = unit
        self.side = int(np.ceil(EXTENT[0] * unit))
        self.centre = np.array([self.side / 2, EXTENT[1] * unit])

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Returns OpenCV's fixed-point (4 bits) coordinates of `points` `[N, 2]`."""
        return np.rint((points * self.unit + self.centre) * 16).astype(np.int32)

    def fill(self, image: np.ndarray, points: np.ndarray, colour) -> None:
        """Fills a polygon."""
        cv2.fillPoly(image, [self.pixels(points)], colour, cv2.LINE_AA, 4)

    def line(self, image: np.ndarray, points: np.ndarray, colour, width: float, closed: bool = False) -> None:
        """Draws a line of `width` half face heights (at least one pixel)."""
        cv2.polylines(image, [self.pixels(points)], closed, colour, max(1, round(width * self.unit)), cv2.LINE_AA, 4)

    def grid(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns x and y of the canvas sampled `[side, side]`."""
        axis = (np.arange(side, dtype=np.float32) + 0.5) * (self.side / side)
        return np.meshgrid((axis - self.centre[0]) / self.unit, (axis - self.centre[1]) / self.unit)


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0, count: int = 28) -> np.ndarray:
    """Returns the points `[count, 2]` of an ellipse."""
    theta = np.linspace(0, 2 * np.pi, count, endpoint=False)
    px, py = rx * np.cos(theta), ry * np.sin(theta)
    return np.stack([x + px * np.cos(angle) - py * np.sin(angle), y + px * np.sin(angle) + py * np.cos(angle)], axis=1)


def _shading(who: Identity, canvas: Canvas) -> np.ndarray:
    """Returns how much light each point of the face sends back, relative to its colour, float32 `[side, side]`.

    A Lambertian egg under one lamp, with Gaussian hollows and ridges where a skull has them. Computed coarsely: it is
    smooth, and enlarging it costs less.
    """
    side = 80
    x, y = canvas.grid(side)
    u, v = x / (1.06 * who.width), y / 1.12
    depth = np.sqrt(np.maximum(1 - u**2 - v**2, 0.02))
    lambert = np.maximum(u * who.light[0] + v * who.light[1] + depth * who.light[2], 0)
    shade = 0.50 + 0.56 * lambert

    def bump(cx, cy, rx, ry, strength):
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
    noise = np.random.default_rng(who.texture).standard_normal((side, side)).astype(np.float32)
    shade = shade + 0.05 * cv2.GaussianBlur(noise, (0, 0), 1.2) + 0.06 * cv2.GaussianBlur(noise, (0, 0), 4)
    return cv2.resize(shade.astype(np.float32), (canvas.side, canvas.side), interpolation=cv2.INTER_CUBIC)


def _hair_mass(who: Identity) -> np.ndarray:
    """Returns the contour of the hair behind the face."""
    grow = {"short": 0.13, "long": 0.19, "bun": 0.10, "bald": 0.0}[who.hair_style]
    if who.hair_style == "long":
        half = who.width + grow
        theta = np.linspace(np.pi, 2 * np.pi, 24)
        top = np.stack([half * np.cos(theta), -0.12 + (1 + 0.62 * grow - 0.02) * np.sin(theta)], axis=1)
        tail = np.array(
            [
                [half * 1.04, 0.5],
                [half * 0.98, 1.05],
                [half * 0.62, 1.3],
                [-half * 0.62, 1.3],
                [-half * 0.98, 1.05],
                [-half * 1.04, 0.5],
            ]
        )
        return np.concatenate([top, tail])
    return ellipse(0, -0.25, who.width + grow, 0.87 + grow)


class Layers:
    """The still parts of a head at one size: `face` and `back` (turned away), uint8 RGB, and `alpha` float32 0–1."""

    def __init__(self, who: Identity, unit: float):
        self.who, self.canvas = who, Canvas(unit)
        side = self.canvas.side
        shade = _shading(who, self.canvas)
        x, y = self.canvas.grid(side)
        strands = np.random.default_rng(who.texture + 1).standard_normal((1, side)).astype(np.float32)
        strands = 1 + 0.16 * cv2.GaussianBlur(np.repeat(strands, side, axis=0), (0, 0), 0.9)
        gloss = 0.78 + 0.45 * np.exp(-(((x - 0.5 * who.light[0]) / 0.6) ** 2) - ((y + 0.85) / 0.28) ** 2)
        hair = np.clip(who.hair * (strands * gloss)[..., None], 0, 255)

        def mask(*shapes):
            out = np.zeros((side, side), np.uint8)
            for shape in shapes:
                self.canvas.fill(out, shape, 255)
            return out.astype(np.float32)[..., None] / 255

        skin = np.clip(self._complexion(x, y) * shade[..., None], 0, 255)
        outline = who.outline()
        ears = [ellipse(s * (who.width + 0.015), 0.02, 0.085, 0.19, s * 0.12) for s in (-1, 1)]
        mass = [_hair_mass(who)]
        if who.hair_style == "bun":
            mass.append(ellipse(0.1, -1.18, 0.24, 0.2))
        head, ear, tress = mask(outline), mask(*ears), mask(*mass)
        bald = who.hair_style == "bald"
        picture = skin * 0.8 if bald else hair * 0.72
        picture = np.where(ear > 0, (1 - ear) * picture + ear * skin * 0.9, picture)
        picture = (1 - head) * picture + head * skin
        if who.beard:
            picture = self._beard(picture, x, y, hair)
        alpha = np.maximum(head, ear)
        if not bald:
            front = mask(*self._front())
            picture = (1 - front) * picture + front * hair
            alpha = np.maximum(alpha, np.maximum(tress, front))
        rim = mask(who.outline(-0.012)) * (1 - mask(who.outline(-0.05)))
        picture = picture * (1 - 0.10 * rim)
        self.face = np.rint(np.clip(picture, 0, 255)).astype(np.uint8)
        self.alpha = alpha[..., 0]
        behind = hair * (0.62 + 0.4 * np.sqrt(np.maximum(1 - (x / 1.0) ** 2 - (y / 1.35) ** 2, 0)))[..., None]
        self.back = np.rint(np.clip(behind if not bald else skin * 0 + who.skin * 0.8, 0, 255)).astype(np.uint8)
        self.nostrils()

    def _complexion(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns the skin's own colour: redder on cheeks, nose and round the mouth."""
        who = self.who
        red = np.exp(-(((x / 0.12) ** 2) + ((y - who.eye_height - who.nose_length) / 0.14) ** 2)) * 0.5
        for s in (-1, 1):
            red = red + np.exp(-(((x - s * 0.43) / 0.22) ** 2) - ((y - 0.22) / 0.2) ** 2)
        return who.skin + red[..., None] * np.array([6.0, -14.0, -12.0])

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

    def _beard(self, picture, x, y, hair):
        who = self.who
        low = 1 / (1 + np.exp(-(y - 0.36 - 0.25 * (1 - np.minimum(np.abs(x) / 0.6, 1))) / 0.05))
        mouth = np.exp(-((x / (who.mouth_width * 1.15)) ** 4) - ((y - who.mouth_height) / 0.13) ** 4)
        moustache = np.exp(-((x / 0.3) ** 4) - ((y - (who.mouth_height - 0.13)) / 0.045) ** 2)
        inside = np.zeros(picture.shape[:2], np.uint8)
        self.canvas.fill(inside, who.outline(), 255)
        weight = np.clip(low * (1 - mouth) + moustache, 0, 1) * (inside / 255.0) * 0.75 * who.beard
        return picture * (1 - weight[..., None]) + hair * 0.8 * weight[..., None]

    def nostrils(self) -> None:
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
