"""Who is drawn: the shape, colours and habits of one head as numbers."""

import dataclasses

import numpy as np

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
    fringe: float  # how far hair falls over the forehead
    parting: float
    beard: float  # 0 none … 1 full
    glasses: bool
    light: np.ndarray  # unit vector towards the light
    texture: int  # seed of the skin's unevenness
    rest: np.ndarray  # this person's neutral face, as an offset in expression space

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
            cloth=np.clip(rng.uniform(50, 190) + rng.normal(0, 28, 3), 20, 230),
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
            rest=rng.normal(0, 0.07, 12) * np.array([1, 0.3, 1, 0.5, 0.3, 0.6, 1.2, 1.2, 0.5, 1.2, 0.5, 0.3]),
        )

    def outline(self, grow: float = 0.0) -> np.ndarray:
        """Returns the contour of the face, float64 `[N, 2]` (x, y), clockwise from the top."""
        height = -np.cos(np.linspace(0, np.pi, 33))
        half = (
            self.width
            * np.sqrt(np.maximum(1 - np.abs(height) ** 2.5, 0))
            * (1 - self.jaw * np.maximum(height, 0) ** 1.6)
        )
        right = np.stack([half, height], axis=1)
        left = np.stack([-half, height], axis=1)[::-1]
        return np.concatenate([right, left]) * (1 + grow)


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0, count: int = 28) -> np.ndarray:
    """Returns the points `[count, 2]` of an ellipse."""
    theta = np.linspace(0, 2 * np.pi, count, endpoint=False)
    px, py = rx * np.cos(theta), ry * np.sin(theta)
    return np.stack([x + px * np.cos(angle) - py * np.sin(angle), y + px * np.sin(angle) + py * np.cos(angle)], axis=1)
