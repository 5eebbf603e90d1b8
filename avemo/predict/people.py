"""Several faces in one video: one pass of the detector, one `Follower` for each person.

The followers are `media.faces.Follower`, unchanged: each sees only the detections that were assigned to it, so that
a person's crops are those that training would have cut if nobody else had been in the picture.
"""

import collections
import math
from collections.abc import Iterable, Iterator

import numpy as np

from media.faces import DETECTORS, Face, FaceFrame, FaceOptions, Follower, overlap
from media.video import Frame


class _Assigner:
    """Detects once a picture and gives every face to one of a fixed number of persons."""

    def __init__(self, options: FaceOptions, persons: int):
        self._detect, self._lost_after = DETECTORS[options.detector](options), options.lost_after
        self._last: list[Face | None] = [None] * persons
        self._seen = [-math.inf] * persons
        self._known: dict[int, list[Face | None]] = {}
        self._times: dict[int, float] = {}

    def begin(self, frames: Iterable[Frame]) -> None:
        """Forgets the pictures before and announces the times of the next ones."""
        self._known.clear()
        self._times = {id(frame.image): frame.time for frame in frames}

    def face_of(self, person: int, image: np.ndarray) -> list[Face]:
        """The face of one person in a picture, as a detector's answer."""
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
            if i not in taken:
                person = self._free(out, time)
                if person is not None:
                    out[person] = face
        for person, face in enumerate(out):
            if face is not None:
                self._last[person], self._seen[person] = face, time
        return out

    def _free(self, out: list[Face | None], time: float) -> int | None:
        """Who takes up a face that nobody follows: the person lost last (somebody returns), else the next number."""
        lost = [
            p
            for p, last in enumerate(self._last)
            if last is not None and out[p] is None and time - self._seen[p] > self._lost_after
        ]
        if lost:
            return max(lost, key=lambda p: self._seen[p])
        return next((p for p, last in enumerate(self._last) if last is None and out[p] is None), None)


class People:
    """Follows up to `persons` faces, frame by frame, holding at most `detect_every` pictures.

    Person 0 is the largest face of the first picture that shows one; later ones are numbered as they come in. A face
    that comes back after `lost_after` seconds is taken for the one that was lost last: nobody is recognised.
    """

    def __init__(self, options: FaceOptions, persons: int):
        self._options = options
        self._assigner = _Assigner(options, persons)
        self._feeds = [collections.deque[Frame]() for _ in range(persons)]
        self._streams = [self._follow(person) for person in range(persons)]

    def _follow(self, person: int) -> Iterator[FaceFrame]:
        follower = Follower(self._options)
        # The shared pass looks for faces of all sizes: `smallest`, a hint to save time, is of no use to it.
        follower._detect = lambda image, smallest=0.0: self._assigner.face_of(person, image)
        feed = self._feeds[person]
        return follower(iter(lambda: feed.popleft() if feed else None, None))

    def __call__(self, frames: Iterable[Frame]) -> Iterator[list[FaceFrame]]:
        """Yields the faces of all persons for each frame, in order."""
        held: list[Frame] = []
        first = True
        for frame in frames:
            held.append(frame)
            # The groups of `Follower.__call__`: the first frame alone, then `detect_every` at a time.
            if not first and len(held) < self._options.detect_every:
                continue
            yield from self._settle(held)
            held, first = [], False
        if held:
            yield from self._settle(held)

    def _settle(self, held: list[Frame]) -> Iterator[list[FaceFrame]]:
        self._assigner.begin(held)
        for feed in self._feeds:
            feed.extend(held)
        rows = [[next(stream) for _ in held] for stream in self._streams]
        yield from (list(row) for row in zip(*rows, strict=True))
