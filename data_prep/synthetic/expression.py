"""The expression space: what moves in a drawn face, the eight prototypes in it, and distances between expressions."""

import numpy as np

# One column per movement; 0 is at rest, 1 is full. The names follow the facial action units that they imitate.
MOVES = (
    "mouth_curve",  # corners up (AU 12) or down (AU 15)
    "mouth_open",  # jaw and lips apart (AU 25-27)
    "mouth_width",  # stretched (AU 20) or rounded (AU 18)
    "lip_press",  # thinned (AU 24)
    "lip_raise",  # upper lip up (AU 10)
    "mouth_skew",  # one corner only (AU 14, unilateral)
    "brow_raise",  # up (AU 1+2) or lowered (AU 4)
    "brow_slant",  # inner ends up (AU 1), or down when negative (AU 4)
    "brow_knit",  # drawn together (AU 4)
    "eye_open",  # widened (AU 5) or drooping
    "squint",  # lower lids and cheeks up (AU 6)
    "nose_wrinkle",  # AU 9
)
INDEX = {name: column for column, name in enumerate(MOVES)}
CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")  # AffectNet's order


def make(**moves: float) -> np.ndarray:
    """Returns the expression `[len(MOVES)]` with the given movements and the rest at 0."""
    vector = np.zeros(len(MOVES))
    for name, value in moves.items():
        vector[INDEX[name]] = value
    return vector


PROTOTYPES = np.stack(
    [
        make(),
        make(mouth_curve=0.9, mouth_open=0.3, mouth_width=0.35, squint=0.7, brow_raise=0.1),
        make(mouth_curve=-0.8, brow_slant=0.9, eye_open=-0.45, brow_raise=0.05, lip_press=0.2),
        make(mouth_open=0.85, mouth_width=-0.5, brow_raise=1.0, eye_open=0.8),
        make(mouth_curve=-0.45, mouth_open=0.4, mouth_width=0.45, brow_raise=0.6, brow_slant=0.7, eye_open=0.9),
        make(mouth_curve=-0.5, lip_raise=0.9, nose_wrinkle=1.0, squint=0.5, brow_raise=-0.3, brow_knit=0.4),
        make(mouth_curve=-0.45, lip_press=0.8, brow_raise=-0.6, brow_slant=-0.9, brow_knit=0.9, eye_open=0.25),
        make(mouth_skew=1.0, mouth_curve=0.1, eye_open=-0.25, lip_press=0.3, squint=0.15),
    ]
)
# The prototypes' valence and arousal: the usual picture of the circumplex (Russell 1980).
PROTOTYPE_AFFECT = np.array(
    [[0.0, 0.0], [0.8, 0.35], [-0.7, -0.4], [0.2, 0.8], [-0.45, 0.75], [-0.65, 0.35], [-0.55, 0.75], [-0.45, 0.1]]
)
SPREAD = np.array([0.5, 0.35, 0.35, 0.3, 0.3, 0.35, 0.5, 0.5, 0.35, 0.5, 0.35, 0.35])  # typical size of each movement


def from_affect(affect: np.ndarray) -> np.ndarray:
    """Maps valence and arousal `[T, 2]` to expressions `[T, len(MOVES)]`, continuously.

    Valence shows in the corners of the mouth, the cheeks and the slant of the brows; arousal in the height of brows
    and lids, and in whether displeasure looks angry (aroused) or sad.
    """
    valence, arousal = affect[:, 0], affect[:, 1]
    pleased, displeased = np.maximum(valence, 0), np.maximum(-valence, 0)
    tense = 0.5 + 0.5 * np.clip(arousal, -1, 1)
    face = np.zeros((len(affect), len(MOVES)))
    face[:, INDEX["mouth_curve"]] = 1.25 * valence
    face[:, INDEX["mouth_open"]] = 0.22 * pleased + 0.12 * np.maximum(arousal, 0)
    face[:, INDEX["mouth_width"]] = 0.5 * pleased
    face[:, INDEX["lip_press"]] = 0.5 * displeased * tense
    face[:, INDEX["brow_raise"]] = 0.75 * arousal - 0.4 * displeased * tense
    face[:, INDEX["brow_slant"]] = displeased * (1.1 - 1.7 * tense)
    face[:, INDEX["brow_knit"]] = 0.9 * displeased * tense
    face[:, INDEX["eye_open"]] = 0.8 * arousal
    face[:, INDEX["squint"]] = 0.9 * pleased
    return face


def sample(rng: np.random.Generator, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one still of a class: expression `[len(MOVES)]` and its (valence, arousal) `[2]`.

    Intensity varies from faint to full, a little of another prototype is mixed in, and every movement has independent
    noise. So classes overlap where they do in photographs: at low intensity, around neutral.
    """
    intensity = rng.uniform(0.45, 1.1)
    other = int(rng.integers(1, len(CLASSES)))
    mixed = rng.uniform(0.0, 0.25)
    expression = intensity * PROTOTYPES[label] + mixed * PROTOTYPES[other]
    expression = expression + rng.normal(0.0, 0.22, len(MOVES)) * SPREAD
    affect = intensity * PROTOTYPE_AFFECT[label] + mixed * PROTOTYPE_AFFECT[other] + rng.normal(0.0, 0.06, 2)
    return expression, np.clip(affect, -1, 1)


def distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns how different two expressions look: the Euclidean distance over the last axis, scaled by `SPREAD`."""
    return np.linalg.norm((first - second) / SPREAD, axis=-1)
