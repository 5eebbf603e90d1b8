"""FER+ (Barsoum et al. 2016): FER2013's 48×48 grey faces with the votes of ten raters each.

Two data sets come of it: faces with the votes as a distribution, and triplets made from the votes.
"""

import csv
import dataclasses
import hashlib
import io
import math
import pathlib
import random
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_prep import stills
from data_prep.corpora.base import Corpus, Item
from media.errors import BadItem, Dropped, UserError
from media.images import check_image_format
from media.records import CLASSES, face_record, faces_features, jpeg, triplets_features

# Columns of label.csv after name and box; the last two are no expressions.
COLUMNS = ("neutral", "happy", "surprise", "sad", "anger", "disgust", "fear", "contempt", "unknown", "not a face")
_ORDER = [COLUMNS.index(name) for name in CLASSES]
PARTS = (("FER2013Train", "train"), ("FER2013Valid", "dev"), ("FER2013Test", "test"))

CITATION = (
    "Barsoum, Zhang, Canton Ferrer, Zhang: Training Deep Networks for Facial Expression Recognition with Crowd-Sourced "
    "Label Distribution. ICMI 2016. Pictures: Goodfellow et al., Challenges in Representation Learning, 2013."
)
LAYOUT = """
    FER2013Train.zip, FER2013Valid.zip and, if there, FER2013Test.zip (or folders of these names): PNG files and
    label.csv with lines `name,"(box)",ten counts`
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """image_size: side of the stored pictures, 0 = their own 48 pixels; image_format: "jpeg" or "webp".

    holdout: share of the training part kept aside as dev, to tune and to choose the checkpoint on; the validation part
    is then test, unseen until the end, and a test part is left out. 0: the parts as published.
    """

    image_size: int = 0
    image_format: str = "jpeg"
    holdout: float = 0.0

    def check(self) -> None:
        """Raises a `UserError` for values that cannot work."""
        check_image_format(self.image_format)
        if self.image_size < 0:
            raise UserError(f"--image_size must not be negative, it is {self.image_size}.")
        if not 0 <= self.holdout < 1:
            raise UserError(f"--holdout is a share of the training part, from 0 to below 1, not {self.holdout}.")

    def parts(self, source: pathlib.Path) -> Iterator[tuple[str, "Rated"]]:
        """Every rated picture with its split."""
        for part, split in PARTS:
            if self.holdout and split == "test":
                continue
            for one in labels(source, part):
                if not self.holdout:
                    yield split, one
                elif split == "dev":
                    yield "test", one
                else:
                    digest = hashlib.sha256(f"{part}/{one.name}".encode()).digest()
                    yield "dev" if int.from_bytes(digest[:4]) < self.holdout * 2**32 else "train", one


@dataclasses.dataclass(frozen=True)
class Rated:
    """A picture and its raters' counts, by `COLUMNS`."""

    part: str
    name: str
    counts: tuple[int, ...]

    @property
    def dropped(self) -> str:
        """Why the picture is of no use, "" if it is."""
        if self.counts[9] * 2 >= max(sum(self.counts), 1):
            return "not a face"
        if self.counts[8] * 2 >= sum(self.counts):
            return "expression unknown to half of the raters"
        return "" if sum(self.counts[:8]) else "nobody rated it"

    @property
    def votes(self) -> np.ndarray:
        """Share of each class among the votes for a class, float64 `[8]`, canonical order."""
        votes = np.array([self.counts[i] for i in _ORDER], np.float64)
        return votes / votes.sum()

    @property
    def label(self) -> int:
        """The class with most votes, canonical order; -1 where that is no single one."""
        top = np.flatnonzero(self.votes == self.votes.max())
        return int(top[0]) if len(top) == 1 else -1


class Pictures:
    """The pictures of one part, from its zip file or its folder; opened once a process."""

    _open: dict[tuple[str, str], zipfile.ZipFile | None] = {}  # noqa: RUF012 - shared: opening a zip reads its table

    @classmethod
    def read(cls, source: pathlib.Path, part: str, name: str) -> bytes:
        """The encoded picture.

        Raises:
          BadItem: it is missing or unreadable.
        """
        key = str(source), part
        try:
            if key not in cls._open:
                cls._open[key] = None if (source / part).is_dir() else zipfile.ZipFile(source / f"{part}.zip")
            packed = cls._open[key]
            return packed.read(f"{part}/{name}") if packed else (source / part / name).read_bytes()
        except (OSError, KeyError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
            raise BadItem(f"picture {part}/{name} is missing or unreadable") from error


def labels(source: pathlib.Path, part: str) -> list[Rated]:
    """Reads a part's label.csv; empty where there is no such part.

    Raises:
      UserError: the table cannot be read; its line is named.
    """
    folder, archive = source / part, source / f"{part}.zip"
    table = folder / "label.csv" if folder.is_dir() else archive
    if not table.exists():
        return []
    try:
        if folder.is_dir():
            text = table.read_text()
        else:
            with zipfile.ZipFile(archive) as packed:
                text = packed.read(f"{part}/label.csv").decode()
    except (OSError, KeyError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise UserError(f"{table} cannot be read ({error}): download it again.") from error
    rated = []
    for number, row in enumerate(csv.reader(io.StringIO(text, newline="")), start=1):
        if not row:
            continue
        try:
            counts = tuple(int(cell) for cell in row[2:])
        except ValueError as error:
            raise UserError(f"label.csv of {part}, line {number}: {error}.") from error
        if len(counts) != len(COLUMNS):
            raise UserError(f"label.csv of {part}, line {number}: {len(counts)} counts, {len(COLUMNS)} expected.")
        rated.append(Rated(part, row[0], counts))
    return rated


class FER(Corpus):
    """Faces with the raters' votes as a distribution over the eight classes; label = the class with most votes.

    Pictures that at least half of the raters call no face or unknown are left out; so are ties at the top, as a label,
    not as votes: they keep the distribution and get the label -1.
    """

    name = "fer"
    kind = "faces"
    title = "FER+ on FER2013: grey 48x48 faces, ten raters' votes over 8 expressions"
    citation = CITATION
    licence = "votes MIT; pictures for research"
    homepage = "https://github.com/microsoft/FERPlus"
    access = (
        "Votes: https://github.com/microsoft/FERPlus; its script puts the PNG files of FER2013 (the Kaggle "
        "challenge) beside them."
    )
    layout = LAYOUT
    chunk = 512
    Options = Options

    def features(self):
        """Schema of the records."""
        return faces_features(image_format=self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Every picture of the parts that are there."""
        items = [
            Item(f"{one.part}/{one.name}", split, payload={"part": one.part, "name": one.name, "counts": one.counts})
            for split, one in self.options.parts(self.source)
        ]
        if not items:
            raise self.wrong_layout("FER2013Train.zip is missing")
        return items

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """One face."""
        rated = Rated(**item.payload)
        if rated.dropped:
            raise Dropped(rated.dropped)
        data = Pictures.read(self.source, rated.part, rated.name)
        yield face_record(
            item.key,
            stills.recoded(data, rated.name, self.options.image_size, self.options.image_format),
            label=rated.label,
            votes=rated.votes,
        )


class FERUnlabelled(Corpus):
    """The pictures of the training part without a label: half of the raters did not know, or the top is a tie.

    What FER+ leaves over is still a face, for the student to be distilled on; pictures that are no face stay out.
    """

    name = "fer_unlabelled"
    kind = "faces"
    title = "Faces of FER+ that the raters gave no label"
    citation = CITATION
    licence = FER.licence
    homepage = FER.homepage
    access = FER.access
    layout = LAYOUT
    chunk = 512
    Options = Options

    def features(self):
        """Schema of the records."""
        return faces_features(image_format=self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Every such picture."""
        part = PARTS[0][0]
        rated = labels(self.source, part)
        if not rated:
            raise self.wrong_layout(f"{part}.zip is missing")
        left = [one for one in rated if one.counts[9] * 2 < sum(one.counts) and (one.dropped or one.label < 0)]
        return [Item(f"{part}/{one.name}", "train", payload={"name": one.name}) for one in left]

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """One face."""
        name = item.payload["name"]
        data = Pictures.read(self.source, PARTS[0][0], name)
        yield face_record(item.key, stills.recoded(data, name, self.options.image_size, self.options.image_format))


@dataclasses.dataclass(frozen=True)
class TripletOptions(Options):
    """Options of the triplets.

    image_size, image_format, holdout: as for the faces; train, dev, test: triplets to make, each from its own pictures;
    min_margin: how much nearer the similar pair must be than either of the other two pairs (distance of vote vectors,
    0 to √2); seed.
    """

    train: int = 20000
    dev: int = 3000
    test: int = 3000
    min_margin: float = 0.3
    seed: int = 0

    def check(self) -> None:
        """Raises a `UserError` for values that cannot work."""
        super().check()
        if not 0 <= self.min_margin < math.sqrt(2):
            raise UserError(f"--min_margin is a distance of votes, 0 to 1.41, not {self.min_margin}.")
        if min(self.train, self.dev, self.test) < 0:
            raise UserError("--train, --dev and --test are numbers of triplets and must not be negative.")


class FERTriplets(Corpus):
    """Triplets from the raters' votes: the two nearest of three against the third, where the margin is clear.

    The type follows FEC: how many expressions (most-voted classes) the three show. The types are made in equal numbers,
    as far as they are found. `agreement` is the margin between the similar pair and the nearer of the other two.
    """

    name = "fer_triplets"
    kind = "triplets"
    title = "Triplets of expressions made from the votes of FER+"
    citation = CITATION
    licence = FER.licence
    homepage = FER.homepage
    access = FER.access
    layout = LAYOUT
    chunk = 256
    Options = TripletOptions

    def features(self):
        """Schema of the records."""
        return triplets_features(image_format=self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Draws the triplets, the same for the same seed."""
        items = []
        rated: dict[str, list[Rated]] = {}
        for split, one in self.options.parts(self.source):
            if not one.dropped:
                rated.setdefault(split, []).append(one)
        for split, usable in rated.items():
            wanted = getattr(self.options, split)
            if len(usable) >= 3 and wanted:
                items += self._draw(split, usable, wanted)
        if not items:
            raise self.wrong_layout("FER2013Train.zip is missing")
        return items

    def _draw(self, split: str, usable: list[Rated], wanted: int) -> Iterator[Item]:
        rng = random.Random(f"{self.options.seed} {split}")
        votes = np.stack([one.votes for one in usable])
        top = votes.argmax(axis=1)
        by_class = [np.flatnonzero(top == c) for c in range(len(CLASSES))]
        present = [c for c in range(len(CLASSES)) if len(by_class[c]) >= 3]
        seen: set[frozenset[int]] = set()
        out: list[Item] = []
        made, tried = [0, 0, 0], [0, 0, 0]
        while len(out) < wanted:
            # The rarest type next, unless it is hardly to be found.
            possible = [kind for kind in range(3) if kind < len(present) and tried[kind] < 50 * wanted]
            if not possible:
                break
            kind = min(possible, key=lambda kind: made[kind])
            tried[kind] += 1
            classes = rng.sample(present, kind + 1)
            chosen = [int(rng.choice(by_class[c])) for c in (classes + classes[:1] * 2)[:3]]
            if len(set(chosen)) < 3 or frozenset(chosen) in seen:
                continue
            rng.shuffle(chosen)
            odd, margin = odd_one_out(votes[chosen])
            if margin < self.options.min_margin:
                continue
            seen.add(frozenset(chosen))
            made[kind] += 1
            pictures = [[usable[i].part, usable[i].name] for i in chosen]
            payload = {"pictures": pictures, "odd": odd, "type": kind, "margin": margin}
            out.append(Item(f"{split}/{len(out):06d}", split, payload=payload))
        return out

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """One triplet."""
        data = [(name, Pictures.read(self.source, part, name)) for part, name in item.payload["pictures"]]
        form = self.options.image_size, self.options.image_format
        yield {
            "name": item.key,
            "images": [jpeg(stills.recoded(one, name, *form)) for name, one in data],
            "odd": item.payload["odd"],
            "type": item.payload["type"],
            "agreement": np.float32(item.payload["margin"]),
        }


def odd_one_out(votes: np.ndarray) -> tuple[int, float]:
    """Which of three vote vectors `[3, C]` lies outside the nearest pair, and by what margin of Euclidean distance."""
    opposite = np.array([np.linalg.norm(votes[(i + 1) % 3] - votes[(i + 2) % 3]) for i in range(3)])
    odd = int(opposite.argmin())
    return odd, float(np.partition(opposite, 1)[1] - opposite[odd])
