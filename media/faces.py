"""Faces in video: detecting, following and cropping one person. A frame without a face is masked, never dropped."""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import cv2
import numpy as np

from media import yunet
from media.errors import UserError
from media.images import JPEG_QUALITY, check_image_format, encode_image
from media.registry import Registry
from media.video import Frame

# The Haar cascade of OpenCV 4, or a folder that is not there: OpenCV 5 ships none.
CASCADE = pathlib.Path(getattr(getattr(cv2, "data", None), "haarcascades", "")) / "haarcascade_frontalface_alt2.xml"
DEFAULT_DETECTOR = "yunet"  # works with every OpenCV from 4.10; what recorded another one keeps it


@dataclasses.dataclass(frozen=True)
class FaceOptions:
    """How faces are found and cut out.

    detector: a name in `DETECTORS`; detector_model: its weights, "" = those that ship with it.
    detect_every: frames between detections; 1 = every frame. Between two detections the box is interpolated.
    detect_side: frames are reduced to this longer side for detection, pixels.
    crop_size: side of the stored crop, pixels; margin: share of the box added on every side; align: rotate the eyes
      level (only for detectors that find eyes).
    max_gap: longest time without a face over which the box is interpolated, seconds (the mask stays False).
    lost_after: seconds without the followed face after which another one is followed.
    image_format: of the stored crops, "jpeg" or "webp" (fewer bytes, slower to write and to read);
    jpeg_quality: for either format, 1 to 100.
    """

    detector: str = DEFAULT_DETECTOR
    detector_model: str = ""
    detect_every: int = 5
    detect_side: int = 320
    crop_size: int = 160
    margin: float = 0.15
    align: bool = True
    max_gap: float = 0.5
    lost_after: float = 1.0
    image_format: str = "jpeg"
    jpeg_quality: int = JPEG_QUALITY

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Builds options from `values` and ignores keys that are not options, such as those of another version."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})

    def check(self) -> None:
        """Raises a `UserError` for values that cannot work, before any video is opened."""
        DETECTORS[self.detector]
        check_image_format(self.image_format)
        if not 1 <= self.jpeg_quality <= 100:
            raise UserError(f"--jpeg_quality must be 1 to 100, not {self.jpeg_quality}.")
        for name in ("detect_every", "detect_side", "crop_size"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 <= self.margin <= 2:
            raise UserError(f"--margin is a share of the face box and must be 0 to 2, not {self.margin}.")
        if self.detector == "haar":
            _check_haar()
        if self.detector == "yunet" and self.detector_model and not pathlib.Path(self.detector_model).is_file():
            raise UserError(
                f"--detector_model={self.detector_model} is not a file: name YuNet's FILE.onnx, or nothing for the one "
                "that ships with avemo."
            )


@dataclasses.dataclass(frozen=True)
class Face:
    """A square face box in pixels: centre (x, y), side, roll of the eye line in degrees, detector confidence."""

    x: float
    y: float
    side: float
    roll: float = 0.0
    confidence: float = 1.0

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Corners (x0, y0, x1, y1) in pixels."""
        half = self.side / 2
        return self.x - half, self.y - half, self.x + half, self.y + half

    def toward(self, other: "Face", share: float) -> "Face":
        """Interpolates: `share` 0 gives this face, 1 gives `other`. The confidence is the lower of the two."""

        def between(a: float, b: float) -> float:
            return a + share * (b - a)

        return Face(
            between(self.x, other.x),
            between(self.y, other.y),
            between(self.side, other.side),
            between(self.roll, other.roll),
            min(self.confidence, other.confidence),
        )


def overlap(a: Face, b: Face) -> float:
    """Intersection over union of two boxes."""
    ax0, ay0, ax1, ay1 = a.box
    bx0, by0, bx1, by1 = b.box
    shared = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    return shared / (a.side**2 + b.side**2 - shared)


class Detector(Protocol):
    """Finds the faces in an RGB image uint8 `[H, W, 3]`."""

    def __call__(self, image: np.ndarray, smallest: float = 0.0) -> list[Face]:
        """Returns every face in pixels of the image; faces with a side below `smallest` may be left out."""
        ...


DETECTORS: Registry[Callable[[FaceOptions], Detector]] = Registry("face detector")


@DETECTORS.register("haar")
class HaarDetector:
    """OpenCV's frontal Haar cascade (Viola & Jones 2001), which ships with OpenCV 4 and so needs no download."""

    def __init__(self, options: FaceOptions):
        _check_haar()
        self._cascade, self._side = cv2.CascadeClassifier(str(CASCADE)), options.detect_side

    def __call__(self, image: np.ndarray, smallest: float = 0.0) -> list[Face]:
        """Returns every face in pixels of the image; faces with a side below `smallest` may be left out."""
        small, scale = _reduced(image, self._side)
        grey = cv2.equalizeHist(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
        least = max(24, min(grey.shape) // 6, int(smallest / scale))
        # On RAVDESS and GRID, scale steps of 1.2 find every face that steps of 1.1 find, in half the time.
        found, _, weights = self._cascade.detectMultiScale3(
            grey, scaleFactor=1.2, minNeighbors=3, minSize=(least, least), outputRejectLevels=True
        )
        faces = []
        for (x, y, w, h), weight in zip(found, weights, strict=True):
            confidence = 1 / (1 + math.exp(-float(weight)))  # the weight is a sum; only the order matters
            faces.append(Face((x + w / 2) * scale, (y + h / 2) * scale, max(w, h) * scale, 0.0, confidence))
        return faces


@DETECTORS.register("yunet")
class YuNetDetector:
    """YuNet (Wu et al. 2023) through OpenCV's `FaceDetectorYN`, shipped with avemo; the eyes give the roll."""

    def __init__(self, options: FaceOptions):
        self._net, self._side = yunet.open_network(options.detector_model), options.detect_side

    def __call__(self, image: np.ndarray, smallest: float = 0.0) -> list[Face]:
        """Returns every face in pixels of the image; faces with a side below `smallest` may be left out."""
        small, scale = _reduced(image, self._side)
        self._net.setInputSize((small.shape[1], small.shape[0]))
        _, found = self._net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        faces = []
        for row in found if found is not None else []:
            x, y, w, h = (float(v) * scale for v in row[:4])
            eyes = row[4:8]  # the person's right eye (on the left of the image), then the left one
            roll = math.degrees(math.atan2(eyes[3] - eyes[1], eyes[2] - eyes[0]))
            faces.append(Face(x + w / 2, y + h / 2, max(w, h), roll, float(row[14])))
        return faces


def has_haar() -> bool:
    """Whether this OpenCV ships the cascade: version 4 does, version 5 does not."""
    return hasattr(cv2, "CascadeClassifier") and CASCADE.is_file()


def _check_haar() -> None:
    if not has_haar():
        raise UserError(
            f"OpenCV {cv2.__version__} ships no Haar cascade: install 'opencv-python<5', or choose --detector=yunet."
        )


def _reduced(image: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """Shrinks an image to a longer side of at most `side`; also returns the factor back to its own pixels."""
    scale = max(image.shape[:2]) / side
    if scale <= 1:
        return image, 1.0
    size = (max(1, round(image.shape[1] / scale)), max(1, round(image.shape[0] / scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def crop(image: np.ndarray, face: Face, options: FaceOptions) -> np.ndarray:
    """Cuts out a face: uint8 `[S, S, 3]`, S = `crop_size`, black where the square leaves the image."""
    side = max(face.side * (1 + 2 * options.margin), 1.0)
    roll = face.roll if options.align and abs(face.roll) <= 60 else 0.0  # beyond that, eyes are false detections
    # Shrinks to about the crop's scale first, because warping alone would skip pixels.
    shrink = side / options.crop_size
    if shrink > 1.5:
        image, back = _reduced(image, max(1, round(max(image.shape[:2]) / shrink)))
        face, side = Face(face.x / back, face.y / back, face.side / back, face.roll), side / back
    scale = options.crop_size / side
    turn = np.asarray(cv2.getRotationMatrix2D((face.x, face.y), roll, scale), np.float64)
    turn[:, 2] += options.crop_size / 2 - np.array([face.x, face.y])
    return cv2.warpAffine(image, turn, (options.crop_size, options.crop_size), flags=cv2.INTER_LINEAR)


@dataclasses.dataclass
class FaceFrame:
    """The face of one frame: jpeg (black without a face), mask, box `(x0, y0, x1, y1)` as fractions, confidence."""

    time: float
    jpeg: bytes
    mask: bool
    box: tuple[float, float, float, float]
    confidence: float


class Follower:
    """Follows one face through a video, holding at most `detect_every` frames in memory.

    It starts with the largest face and then follows the one that overlaps most with the last. Once that face has been
    lost for `lost_after` seconds, it starts again with the largest.
    """

    def __init__(self, options: FaceOptions, detect: Detector | None = None):
        """`detect` replaces the detector that `options` name, for a caller that detects for several followers."""
        self.options = options
        self._detect: Detector = detect or DETECTORS[options.detector](options)
        self.black = self._encode(np.zeros((options.crop_size, options.crop_size, 3), np.uint8))
        self._last: Face | None = None
        self._seen = -math.inf

    def _encode(self, image: np.ndarray) -> bytes:
        return encode_image(image, self.options.image_format, self.options.jpeg_quality)

    def _find(self, frame: Frame) -> Face | None:
        last = self._last if frame.time - self._seen <= self.options.lost_after else None
        faces = self._detect(frame.image, 0.6 * last.side if last else 0.0)
        if not faces:
            return None
        if last is None:
            best = max(faces, key=lambda face: face.side * face.confidence)
        else:
            best = max(faces, key=lambda face: (overlap(face, last), face.side))
            away = math.hypot(best.x - last.x, best.y - last.y)
            if overlap(best, last) < 0.1 and away > last.side:
                return None  # somebody else
            # Detected boxes jitter, so the size moves only half of the way to the new one.
            smooth = last.toward(best, 0.5).side if overlap(best, last) > 0.5 else best.side
            best = dataclasses.replace(best, side=smooth)
        self._last, self._seen = best, frame.time
        return best

    def __call__(self, frames: Iterable[Frame]) -> Iterator[FaceFrame]:
        """Yields one `FaceFrame` per frame, in order."""
        held: list[Frame] = []
        before: Face | None = None
        first = True
        for frame in frames:
            held.append(frame)
            if first or len(held) >= self.options.detect_every:
                found = self._faces_of(held, before, first)
                yield from map(self._cut, held, found)
                before, first, held = found[-1], False, []
        if held:
            yield from map(self._cut, held, self._faces_of(held, before, first))

    def _faces_of(self, held: Sequence[Frame], before: Face | None, first: bool) -> Sequence[Face | None]:
        """Detects in the last frame held and fills in those before it."""
        state = self._last, self._seen
        after = self._find(held[-1])
        if before is not None and after is not None and overlap(before, after) > 0.4:
            return [before.toward(after, (i + 1) / len(held)) for i in range(len(held))]
        if before is None and after is None and not first:
            return [None] * len(held)  # a face that appeared for less than `detect_every` frames is ignored
        # The face came, went or jumped in between: look at every frame, in order.
        self._last, self._seen = state
        return [self._find(frame) for frame in held]

    def _cut(self, frame: Frame, face: Face | None) -> FaceFrame:
        if face is None:
            return FaceFrame(frame.time, self.black, False, (0.0, 0.0, 0.0, 0.0), 0.0)
        height, width = frame.image.shape[:2]
        x0, y0, x1, y1 = face.box
        x0, y0, x1, y1 = (float(np.clip(v, 0, 1)) for v in (x0 / width, y0 / height, x1 / width, y1 / height))
        data = self._encode(crop(frame.image, face, self.options))
        return FaceFrame(frame.time, data, True, (x0, y0, x1, y1), face.confidence)


def bridge_gaps(time: np.ndarray, box: np.ndarray, mask: np.ndarray, max_gap: float) -> np.ndarray:
    """Interpolates boxes over short runs without a face; the mask is left alone.

    Args:
      time: float `[T]`, seconds; box: float32 `[T, 4]`; mask: bool `[T]`, True for frames with a face.
      max_gap: longest time between two faces that is bridged, seconds.

    Returns:
      box float32 `[T, 4]`.
    """
    box = np.array(box, np.float32)
    found = np.flatnonzero(mask)
    for a, b in itertools.pairwise(found):
        if b - a > 1 and time[b] - time[a] <= max_gap:
            share = ((time[a + 1 : b] - time[a]) / (time[b] - time[a]))[:, None].astype(np.float32)
            box[a + 1 : b] = box[a] + share * (box[b] - box[a])
    return box
