"""The faces of every frame, followed and cut out as the encoder saw them in training.

Several people share one detector pass, but each has a `media.faces.Follower` that sees only the detections assigned
to that person. So each person's crops are those that training would have cut with nobody else in the picture.
"""

import collections
import functools
import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np

from avemo.data.shards import Images
from media.faces import DETECTORS, Face, FaceFrame, FaceOptions, Follower, overlap
from media.images import resize
from media.video import Frame

# One frame: each person's `FaceFrame` and crop, uint8 [S, S, 3] (None without a face).
PeopleInFrame = tuple[list[FaceFrame], list[np.ndarray | None]]


def follow(frames: Iterable[Frame], options: FaceOptions, persons: int, size: int | None) -> Iterator[PeopleInFrame]:
    """Detects, follows and cuts out up to `persons` faces; `size` is that of the crops, as in `crop`."""
    if persons == 1:
        everybody: Iterable[list[FaceFrame]] = ([face] for face in Follower(options)(frames))
    else:
        everybody = MultiFollower(options, persons)(frames)
    for faces in everybody:
        yield faces, [crop(face, size) for face in faces]


def crop(face: FaceFrame, size: int | None) -> np.ndarray | None:
    """The face as the encoder sees it, uint8 `[size, size, 3]`, after the JPEG compression that records go through.

    None where the frame shows no face; `size` None keeps the size at which it was cut out.
    """
    if not face.mask:
        return None
    image = Images([face.jpeg], "face").decode(0)
    return image if size is None else resize(image, size)


def no_face(time: float) -> FaceFrame:
    """The `FaceFrame` of a frame in which nobody is looked for."""
    return FaceFrame(time, b"", False, (0.0, 0.0, 0.0, 0.0), 0.0)


class MultiFollower:
    """Follows up to `persons` faces, frame by frame, holding at most `detect_every` pictures.

    Person 0 is the largest face in the first picture that shows any; later ones are numbered as they appear. People
    are not recognised: a face that appears after somebody has been lost for `lost_after` seconds gets the number of the
    person lost most recently.
    """

    def __init__(self, options: FaceOptions, persons: int):
        self._options = options
        self._assigner = _Assigner(options, persons)
        self._feeds = [collections.deque[Frame]() for _ in range(persons)]
        self._streams = [self._stream(person) for person in range(persons)]

    def _stream(self, person: int) -> Iterator[FaceFrame]:
        feed = self._feeds[person]
        frames = iter(lambda: feed.popleft() if feed else None, None)
        return Follower(self._options, functools.partial(self._assigner.face_of, person))(frames)

    def __call__(self, frames: Iterable[Frame]) -> Iterator[list[FaceFrame]]:
        """Yields the faces of all persons for each frame, in order."""
        frames = iter(frames)
        # The groups of `Follower.__call__`: the first frame alone, then `detect_every` at a time.
        group = list(itertools.islice(frames, 1))
        while group:
            self._assigner.begin(group)
            for feed in self._feeds:
                feed.extend(group)
            tracks = [list(itertools.islice(stream, len(group))) for stream in self._streams]
            yield from (list(faces) for faces in zip(*tracks, strict=True))
            group = list(itertools.islice(frames, self._options.detect_every))


class _Assigner:
    """Detects once per picture and assigns every face to one of a fixed number of persons."""

    def __init__(self, options: FaceOptions, persons: int):
        self._detect, self._lost_after = DETECTORS[options.detector](options), options.lost_after
        self._last: list[Face | None] = [None] * persons
        self._seen = [-math.inf] * persons
        self._known: dict[int, list[Face | None]] = {}
        self._times: dict[int, float] = {}

    def begin(self, frames: Iterable[Frame]) -> None:
        """Forgets earlier pictures and takes the times of the next ones."""
        self._known.clear()
        self._times = {id(frame.image): frame.time for frame in frames}

    def face_of(self, person: int, image: np.ndarray, smallest: float = 0.0) -> list[Face]:
        """One person's face in a picture, as a detector returns it.

        `smallest` is ignored: the shared pass looks for faces of all sizes.
        """
        if id(image) not in self._known:
            self._known[id(image)] = self._assign(self._detect(image), self._times[id(image)])
        face = self._known[id(image)][person]
        return [] if face is None else [face]

    def _assign(self, faces: list[Face], time: float) -> list[Face | None]:
        out: list[Face | None] = [None] * len(self._last)
        left = sorted(faces, key=lambda face: -face.side * face.confidence)
        pairs = [
            (overlap(face, last), -math.hypot(face.x - last.x, face.y - last.y) / last.side, i, person)
            for i, face in enumerate(left)
            for person, last in enumerate(self._last)
            if last is not None
        ]
        taken: set[int] = set()
        for shared, away, i, person in sorted(pairs, reverse=True):
            if i not in taken and out[person] is None and (shared >= 0.1 or away >= -1):
                out[person] = left[i]
                taken.add(i)
        for i, face in enumerate(left):
            free = self._free(out, time) if i not in taken else None
            if free is not None:
                out[free] = face
        for person, assigned in enumerate(out):
            if assigned is not None:
                self._last[person], self._seen[person] = assigned, time
        return out

    def _free(self, out: list[Face | None], time: float) -> int | None:
        """The number for a face that nobody follows: that of the person lost last, else the next one."""
        lost = [
            p
            for p, last in enumerate(self._last)
            if last is not None and out[p] is None and time - self._seen[p] > self._lost_after
        ]
        if lost:
            return max(lost, key=lambda p: self._seen[p])
        return next((p for p, last in enumerate(self._last) if last is None and out[p] is None), None)
