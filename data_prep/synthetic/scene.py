"""Places a head in a picture: background and shoulders, head pose, objects in front, lamp and camera."""

from collections.abc import Sequence

import cv2
import numpy as np

from data_prep.synthetic.face import DrawnFace, Pose
from data_prep.synthetic.identity import Identity, ellipse
from data_prep.synthetic.layers import Layers

Pair = Sequence[float] | np.ndarray
HEAD = 0.31  # half face height as a share of the picture's side, at rest, in video
EYE_LINE = 0.45  # height of the face's centre in the picture


def room(rng: np.random.Generator, side: int) -> np.ndarray:
    """Returns a room out of focus, uint8 RGB `[side, side, 3]`."""
    coarse = 40
    y, x = np.mgrid[0:coarse, 0:coarse].astype(np.float32) / coarse
    wall = rng.uniform(80, 190) + rng.normal(0, 10, 3)
    image = wall + ((x - 0.5) * rng.normal(0, 40) + (y - 0.5) * rng.normal(0, 25))[..., None]
    for _ in range(3):  # furniture, windows, posters
        left, top = rng.uniform(-0.2, 0.9, 2)
        wide, high = rng.uniform(0.15, 0.5, 2)
        inside = (x > left) & (x < left + wide) & (y > top) & (y < top + high)
        image = np.where(inside[..., None], image + rng.normal(0, 22) + rng.normal(0, 6, 3), image)
    image = cv2.GaussianBlur(np.clip(image, 10, 245).astype(np.float32), (0, 0), 1.6)
    return cv2.resize(np.rint(image).astype(np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)


def body(who: Identity, side: int, unit: float, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns neck and shoulders, uint8 RGB `[side, side, 3]`, and their opacity, float32 `[side, side]`.

    Args:
      who: the person.
      side: picture side in pixels.
      unit: half face height in pixels.
      centre: the face's centre in pixels.
    """
    image, mask = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.uint8)

    def fill(points: np.ndarray, colour: np.ndarray) -> None:
        pixels = np.rint((points * unit + centre) * 16).astype(np.int32)
        # The colour extends beyond the mask's soft edge; otherwise black would shine through.
        cv2.polylines(image, [pixels], True, tuple(colour), 3, cv2.LINE_AA, 4)
        cv2.fillPoly(image, [pixels], tuple(colour), cv2.LINE_AA, 4)
        cv2.fillPoly(mask, [pixels], 255, cv2.LINE_AA, 4)

    if who.hair_style == "long":
        fill(ellipse(0, 0.5, who.width * 1.15, 0.95), who.hair * 0.6)
    half_turn = np.linspace(0, np.pi, 12)
    fill(np.array([[-0.40, 0.5], [0.40, 0.5], [0.46, 1.5], [-0.46, 1.5]]), who.skin * 0.72)
    fill(np.stack([0.40 * np.cos(half_turn), 0.98 + 0.28 * np.sin(half_turn)], 1), who.skin * 0.55)  # the chin's shadow
    t = np.linspace(0, 1, 14)
    shoulder = np.stack([0.42 + 1.35 * t, 1.22 + 0.55 * t**0.6 + 0.5 * t**3], axis=1)
    collar = np.stack([0.42 * np.cos(half_turn), 1.22 + 0.22 * np.sin(half_turn)], 1)
    fill(np.concatenate([shoulder, [[1.8, 4.0], [-1.8, 4.0]], (shoulder * [-1, 1])[::-1], collar[::-1]]), who.cloth)
    for s in (-1, 1):
        fold = np.array([[s * 0.95, 1.75], [s * 0.8, 2.2], [s * 0.86, 2.8]])
        pixels = np.rint((fold * unit + centre) * 16).astype(np.int32)
        cv2.polylines(image, [pixels], False, tuple(who.cloth * 0.75), 2, cv2.LINE_AA, 4)
    blur = 0.016 * unit
    return cv2.GaussianBlur(image, (0, 0), blur), cv2.GaussianBlur(mask, (0, 0), blur).astype(np.float32) / 255


class Scene:
    """A person in a room in front of a camera, of which `render` takes pictures.

    Args:
      rng: draws the room, the object that may cover the face and the camera's noise.
      who: the person.
      side: picture side in pixels.
      head: half face height as a share of the side.
      noise: standard deviation of the camera's noise, in grey levels.
      centre: where the face's centre rests, as shares of the side.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        who: Identity,
        side: int,
        head: float = HEAD,
        noise: float = 2.0,
        centre: Pair = (0.5, EYE_LINE),
    ) -> None:
        self.side, self.unit = side, head * side
        self.centre = np.array(centre) * side
        self.layers = Layers(who, min(self.unit * 1.05, 84.0))
        self.face, self.canvas = DrawnFace(self.layers), self.layers.canvas
        self.room = room(rng, side)
        self._body, self._body_mask = body(who, side, self.unit, self.centre)
        self._still = cv2.blendLinear(self._body, self.room, self._body_mask, 1 - self._body_mask)
        self._noise = None
        if noise:
            grey = np.rint(rng.normal(0, noise, (side + 32, side + 32, 1))).astype(np.int16)
            self._noise = np.repeat(grey, 3, axis=2)
        self._cover = self._cover_shape(rng, who)

    def render(
        self,
        expression: np.ndarray,
        pose: Pose,
        at: Pair = (0.0, 0.0),
        tilt: float = 0.0,
        zoom: float = 1.0,
        away: float = 0.0,
        cover: float = 0.0,
        gone: float = 0.0,
        gain: float = 1.0,
        grain: Sequence[int] | np.ndarray = (0, 0),
    ) -> np.ndarray:
        """Returns one picture, uint8 RGB `[side, side, 3]`.

        Args:
          expression: `[len(MOVES)]`.
          pose: of the face.
          at: shift of the head, in half face heights.
          tilt: roll of the head, radians.
          zoom: size of the head relative to rest.
          away: 0 facing the camera … 1 turned away.
          cover: 0 nothing … 1 an object in front of the face.
          gone: 0 in the picture … ±1 out of it on that side, with the body.
          gain: brightness.
          grain: offset (0–31, 0–31) into the camera's noise.
        """
        head = self.layers.back if away >= 1 else self.face.draw(expression, pose)
        if 0 < away < 1:
            head = cv2.addWeighted(self.layers.back, away, head, 1 - away, 0)
        scale = zoom * self.unit / self.canvas.unit
        cos, sin = scale * np.cos(tilt), scale * np.sin(tilt)
        off = gone * (self.side / 2 + 1.8 * self.unit)
        target = self.centre + np.array(at) * self.unit + np.array([off, 0.0])
        neck = np.array([0, 0.8])  # a head turns about its neck
        origin, target = self.canvas.centre + neck * self.canvas.unit, target + neck * self.unit
        matrix = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
        matrix[:, 2] = target - matrix[:, :2] @ origin
        self._last = expression, pose, matrix
        size = (self.side, self.side)
        moved = cv2.warpAffine(head, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(self.layers.alpha, matrix, size, flags=cv2.INTER_LINEAR)
        image = cv2.blendLinear(moved, self._behind(off) if off else self._still, alpha, 1 - alpha)
        if cover > 0:
            self._draw_cover(image, target - neck * self.unit, cover)
        if gain != 1:
            image = cv2.convertScaleAbs(image, alpha=gain)
        if self._noise is not None:
            x, y = grain
            image = cv2.add(image, self._noise[y : y + self.side, x : x + self.side], dtype=cv2.CV_8U)
        return image

    def _behind(self, off: float) -> np.ndarray:
        """Returns the room with the body moved sideways by `off` pixels."""
        matrix, size = np.array([[1.0, 0.0, off], [0.0, 1.0, 0.0]]), (self.side, self.side)
        alpha = cv2.warpAffine(self._body_mask, matrix, size)
        return cv2.blendLinear(cv2.warpAffine(self._body, matrix, size), self.room, alpha, 1 - alpha)

    def landmarks(self) -> np.ndarray:
        """Returns the 68 facial landmarks of the last rendered picture in pixels, float64 `[68, 2]`."""
        expression, pose, matrix = self._last
        points = self.face.landmarks(expression, pose) * self.canvas.unit + self.canvas.centre
        return points @ matrix[:, :2].T + matrix[:, 2]

    @staticmethod
    def _cover_shape(rng: np.random.Generator, who: Identity) -> list[tuple[np.ndarray, np.ndarray]]:
        """Draws the object that covers the face: a sheet of paper, a folder, or both hands."""
        if rng.random() < 0.5:
            corners = np.array([[-0.95, -1.05], [0.95, -1.05], [0.95, 1.15], [-0.95, 1.15]]) + rng.normal(
                0, 0.05, (4, 2)
            )
            return [(corners, rng.uniform(90, 235) + rng.normal(0, 18, 3))]
        shapes = []
        for s in (-1, 1):
            shapes.append((ellipse(s * 0.46, 0.45, 0.44, 0.62), who.skin * 0.78))
            shapes.append(
                (np.array([[s * 0.2, 0.8], [s * 0.75, 0.8], [s * 0.95, 2.6], [s * 0.3, 2.6]]), who.skin * 0.74)
            )
            for finger in range(4):
                x = s * (0.12 + 0.22 * finger)
                shapes.append(
                    (
                        ellipse(x, -0.28 + 0.06 * finger, 0.12, 0.72, s * 0.04 * finger),
                        who.skin * (0.84 - 0.03 * (finger % 2)),
                    )
                )
        return shapes

    def _draw_cover(self, image: np.ndarray, at: np.ndarray, cover: float) -> None:
        offset = at + np.array([0, (1 - cover) * 2.6 * self.unit])
        for points, colour in self._cover:
            pixels = np.rint((points * self.unit + offset) * 16).astype(np.int32)
            cv2.fillPoly(image, [pixels], tuple(float(c) for c in np.clip(colour, 0, 255)), cv2.LINE_AA, 4)
            cv2.polylines(
                image, [pixels], True, tuple(float(c) for c in np.clip(colour * 0.8, 0, 255)), 1, cv2.LINE_AA, 4
            )
