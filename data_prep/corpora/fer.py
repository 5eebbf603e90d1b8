"""FER+ (Barsoum et al. 2016): FER2013's 48×48 grey faces, each with the votes of ten raters.

Faces have the votes as a distribution. `fer_triplets` makes triplets from the votes.
"""

import dataclasses
import hashlib
import io
import pathlib
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_prep import stills, tables
from data_prep.corpora.base import Corpus, Item
from media.container import SizeLimit
from media.errors import BadItem, Dropped, UserError
from media.files import LFS_REMEDY, points_to_lfs
from media.images import check_image_format
from media.records import CLASSES, face_record, faces_features

# Columns of label.csv after name and box. The last two are not expressions.
COLUMNS = ("neutral", "happy", "surprise", "sad", "anger", "disgust", "fear", "contempt", "unknown", "not a face")
_ORDER = [COLUMNS.index(name) for name in CLASSES]
FOLDERS = (("FER2013Train", "train"), ("FER2013Valid", "dev"), ("FER2013Test", "test"))

CITATION = (
    "Barsoum, Zhang, Canton Ferrer, Zhang: Training Deep Networks for Facial Expression Recognition with Crowd-Sourced "
    "Label Distribution. ICMI 2016. Pictures: Goodfellow et al., Challenges in Representation Learning, 2013."
)
LAYOUT = """
    FER2013Train.zip, FER2013Valid.zip and optionally FER2013Test.zip (or folders of these names): PNG files and
    label.csv with lines `name,"(box)",ten counts`
"""


@dataclasses.dataclass(frozen=True)
class Options(SizeLimit):
    """Options of FER+.

    image_size: side of the stored pictures in pixels, 0 keeps their 48. image_format: "jpeg" or "webp". holdout: share
    of the training set held out as dev, for tuning and choosing the checkpoint; the validation set is then test, unseen
    until the end, and the test set is left out. 0 keeps the published splits.
    """

    image_size: int = 0
    image_format: str = "jpeg"
    holdout: float = 0.0

    def check(self) -> None:
        """Raises a `UserError` if a value cannot work."""
        check_image_format(self.image_format)
        self.check_reading()
        if self.image_size < 0:
            raise UserError(f"--image_size must not be negative, it is {self.image_size}.")
        if not 0 <= self.holdout < 1:
            raise UserError(f"--holdout is a share of the training set, from 0 to below 1, not {self.holdout}.")

    def rated(self, source: pathlib.Path) -> Iterator[tuple[str, "Rated"]]:
        """Yields the split of every rated picture, and the picture."""
        for folder, split in FOLDERS:
            if self.holdout and split == "test":
                continue
            for picture in labels(source, folder):
                if not self.holdout:
                    yield split, picture
                elif split == "dev":
                    yield "test", picture
                else:
                    digest = hashlib.sha256(f"{folder}/{picture.name}".encode()).digest()
                    yield "dev" if int.from_bytes(digest[:4]) < self.holdout * 2**32 else "train", picture


@dataclasses.dataclass(frozen=True)
class Rated:
    """A picture and its raters' counts in the order of `COLUMNS`."""

    folder: str
    name: str
    counts: tuple[int, ...]
    bad: str = ""  # what is wrong with its row of the table

    @property
    def dropped(self) -> str:
        """Why the picture is unusable, or ""."""
        if self.bad:
            return self.bad
        if self.counts[9] * 2 >= max(sum(self.counts), 1):
            return "not a face"
        if self.counts[8] * 2 >= sum(self.counts):
            return "expression unknown to half of the raters"
        return "" if sum(self.counts[:8]) else "nobody rated it"

    @property
    def votes(self) -> np.ndarray:
        """Share of each class among the votes for any class, float64 `[8]` in canonical order."""
        votes = np.array([self.counts[i] for i in _ORDER], np.float64)
        return votes / votes.sum()

    @property
    def label(self) -> int:
        """The class with most votes in canonical order, or -1 if there is a tie."""
        top = np.flatnonzero(self.votes == self.votes.max())
        return int(top[0]) if len(top) == 1 else -1


class Pictures:
    """The pictures of a folder or its zip file, which is opened once per process."""

    _open: dict[tuple[str, str], zipfile.ZipFile | None] = {}  # noqa: RUF012 - shared, because opening a zip reads its table

    @staticmethod
    def file(source: pathlib.Path, folder: str, name: str) -> str:
        """The file that holds a picture: its own, or the zip file."""
        return str(source / folder / name if (source / folder).is_dir() else source / f"{folder}.zip")

    @classmethod
    def read(cls, source: pathlib.Path, folder: str, name: str) -> bytes:
        """Reads an encoded picture.

        Raises:
          BadItem: it is missing or unreadable.
        """
        key = str(source), folder
        try:
            if key not in cls._open:
                cls._open[key] = None if (source / folder).is_dir() else zipfile.ZipFile(source / f"{folder}.zip")
            packed = cls._open[key]
            return packed.read(f"{folder}/{name}") if packed else (source / folder / name).read_bytes()
        except (OSError, KeyError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
            raise BadItem(f"picture {folder}/{name} is missing or unreadable") from error


def labels(source: pathlib.Path, folder: str) -> list[Rated]:
    """Reads the label.csv of a folder or its zip file; empty if neither is present.

    Raises:
      UserError: the table cannot be read.
    """
    unpacked, archive = source / folder, source / f"{folder}.zip"
    table = unpacked / "label.csv" if unpacked.is_dir() else archive
    if not table.exists():
        return []
    try:
        if unpacked.is_dir():
            text = table.read_text(encoding="utf-8-sig")
        else:
            with zipfile.ZipFile(archive) as packed:
                text = packed.read(f"{folder}/label.csv").decode()
    except (OSError, KeyError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        if points_to_lfs(table):
            raise UserError(f"{table}: {LFS_REMEDY}.") from error
        raise UserError(f"{table} cannot be read ({error}): download it again.") from error
    rated = []
    for number, row in tables.cells(io.StringIO(text, newline="")):
        try:
            counts = tuple(int(cell) for cell in row[2:])
            bad = "" if len(counts) == len(COLUMNS) else f"{len(counts)} counts instead of {len(COLUMNS)}"
        except ValueError as error:
            counts, bad = (), f"a count is no whole number ({error})"
        rated.append(
            Rated(folder, row[0], counts, f"label.csv, line {number}: {bad}") if bad else Rated(folder, row[0], counts)
        )
    return rated


class FER(Corpus):
    """Faces with the raters' votes as a distribution over the eight classes. The label is the class with most votes.

    Pictures that at least half of the raters call unknown or not a face are left out. A tie for most votes keeps the
    distribution and gets the label -1.
    """

    name = "fer"
    kind = "faces"
    title = "FER+ on FER2013: grey 48x48 faces, ten raters' votes over 8 expressions"
    citation = CITATION
    licence = "votes MIT; pictures for research"
    homepage = "https://github.com/microsoft/FERPlus"
    access = (
        "Votes: https://github.com/microsoft/FERPlus; its script adds the PNG files of FER2013, the Kaggle challenge."
    )
    layout = LAYOUT
    chunk = 512
    Options = Options

    def features(self) -> tfds.features.FeaturesDict:
        """Schema of the records."""
        return faces_features(image_format=self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Lists every picture."""
        items = [
            Item(f"{picture.folder}/{picture.name}", split, payload=dataclasses.asdict(picture))
            for split, picture in self.options.rated(self.source)
        ]
        if not items:
            raise self.wrong_layout("FER2013Train.zip is missing or empty")
        return items

    def sources(self, item: Item) -> Iterator[str]:
        """The picture's file."""
        yield Pictures.file(self.source, item.payload["folder"], item.payload["name"])

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields one face."""
        rated = Rated(**item.payload)
        if rated.bad:
            raise BadItem(rated.bad)
        if rated.dropped:
            raise Dropped(rated.dropped)
        data = Pictures.read(self.source, rated.folder, rated.name)
        yield face_record(
            item.key,
            stills.recoded(data, rated.name, *_form(self.options)),
            label=rated.label,
            votes=rated.votes,
        )


class FERUnlabelled(Corpus):
    """The training pictures without a label, because half of the raters did not know or two classes tie.

    They still show faces, on which the student can be distilled. Pictures that are not faces are left out.
    """

    name = "fer_unlabelled"
    kind = "faces"
    title = "Faces of FER+ to which the raters gave no label"
    citation = CITATION
    licence = FER.licence
    homepage = FER.homepage
    access = FER.access
    layout = LAYOUT
    chunk = 512
    Options = Options

    def features(self) -> tfds.features.FeaturesDict:
        """Schema of the records."""
        return faces_features(image_format=self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Lists every such picture."""
        folder = FOLDERS[0][0]
        rated = labels(self.source, folder)
        if not rated:
            raise self.wrong_layout(f"{folder}.zip is missing or empty")
        readable = [picture for picture in rated if not picture.bad]
        faces = [picture for picture in readable if picture.counts[9] * 2 < sum(picture.counts)]
        unlabelled = [picture for picture in faces if picture.dropped or picture.label < 0]
        return [Item(f"{folder}/{picture.name}", "train", payload={"name": picture.name}) for picture in unlabelled]

    def sources(self, item: Item) -> Iterator[str]:
        """The picture's file."""
        yield Pictures.file(self.source, FOLDERS[0][0], item.payload["name"])

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields one face."""
        name = item.payload["name"]
        data = Pictures.read(self.source, FOLDERS[0][0], name)
        yield face_record(item.key, stills.recoded(data, name, *_form(self.options)))


def _form(options: Options) -> tuple[int, str, float]:
    """How pictures are stored, as `stills.recoded` takes it."""
    return options.image_size, options.image_format, options.max_megapixels
