"""Google's Facial Expression Comparison data (Vemulapalli & Agarwala 2019): which of three faces is the odd one out."""

import contextlib
import dataclasses
import functools
import hashlib
import math
import pathlib
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_prep import download, stills, tables
from data_prep.corpora.base import Corpus, Item
from media.container import SizeLimit
from media.errors import BadItem, Dropped, UserError
from media.faces import Face, FaceOptions, crop
from media.images import check_image_format, encode_image
from media.records import TRIPLET_TYPES, jpeg, triplets_features

FILES = (
    ("faceexp-comparison-data-train-public.csv", "train"),
    ("faceexp-comparison-data-test-public.csv", "dev"),
)
TYPE_COLUMN = 15
Box = tuple[float, ...]  # left, right, top, bottom as fractions of the picture


@dataclasses.dataclass(frozen=True)
class Options(SizeLimit):
    """Options of FEC.

    cache: folder of downloaded pictures, by default `images` in the source. crop_size: side of the stored crops in
    pixels. margin: share of the face box added on every side. min_agreement: share of annotators who must agree.
    image_format: of the crops, "jpeg" or "webp". download: first fetch the pictures of the triplets to keep that are
    not in the cache. download_workers: simultaneous connections. download_timeout: seconds per attempt.
    download_retries: attempts after a temporary failure (a time-out, a 5xx answer, a lost or truncated connection).
    """

    cache: str = ""
    crop_size: int = 160
    margin: float = 0.15
    min_agreement: float = 2 / 3
    image_format: str = "jpeg"
    download: bool = False
    download_workers: int = 16
    download_timeout: float = 30.0
    download_retries: int = 3

    def check(self) -> None:
        """Raises a `UserError` if a value cannot work."""
        check_image_format(self.image_format)
        self.check_reading()
        if not 0 <= self.min_agreement <= 1:
            raise UserError(f"--min_agreement is a share from 0 to 1, not {self.min_agreement}.")
        if self.crop_size < 1:
            raise UserError(f"--crop_size must be at least 1, not {self.crop_size}.")
        if self.download_workers < 1 or self.download_timeout <= 0 or self.download_retries < 0:
            raise UserError("--download_workers and --download_timeout must be above 0, --download_retries at least 0.")
        if self.cache and not self.download and not pathlib.Path(self.cache).is_dir():
            raise UserError(f"--cache={self.cache} is not a folder.")


def cache_name(url: str) -> str:
    """Name of a picture in the local cache: the SHA-1 of its address, so that every address gives a valid name."""
    return hashlib.sha1(url.encode()).hexdigest() + ".jpg"


class FEC(Corpus):
    """Triplets of faces cropped from pictures on the web. The public test list becomes `dev`."""

    name = "fec"
    kind = "triplets"
    title = "Google FEC: triplets of facial expressions"
    citation = "Vemulapalli, Agarwala: A Compact Embedding for Facial Expression Similarity. CVPR 2019."
    licence = "lists by Google; the pictures are their owners'"
    homepage = "https://research.google/resources/datasets/google-facial-expression/"
    access = (
        "The lists are open: unpack the archive linked at the homepage. --download=true fetches the pictures; or put "
        "them into images with your own downloader."
    )
    layout = """
        faceexp-comparison-data-{train,test}-public.csv
        images/<sha1 of the address>.jpg (or the address's own file name; or file:// addresses)
    """
    chunk = 64
    Options = Options
    passing = ("download", "download_workers", "download_timeout", "download_retries")

    def features(self) -> tfds.features.FeaturesDict:
        """Schema of the records."""
        return triplets_features(image_format=self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Lists every row of the two tables."""
        items = []
        for name, split in FILES:
            path = self.source / name
            if not path.is_file():
                continue
            with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
                items += [Item(f"{split}/{n}", split, payload={"row": row}) for n, row in tables.cells(file)]
        if not items:
            raise self.wrong_layout(f"{FILES[0][0]} is missing or empty")
        return items

    @property
    def cache(self) -> pathlib.Path:
        """The folder of downloaded pictures."""
        return pathlib.Path(self.options.cache) if self.options.cache else self.source / "images"

    def gather(self, items: Sequence[Item], quiet: bool) -> None:
        """With `--download`, fetches the missing pictures of the triplets on which the annotators agree."""
        if not self.options.download:
            return
        wanted: dict[str, pathlib.Path] = {}
        for item in items:
            try:
                urls, _, _, votes = parse(item.payload["row"])
            except BadItem:
                continue  # `process` counts it
            if agreed(votes)[1] >= self.options.min_agreement - 1e-9:
                web = [url for url in urls if urllib.parse.urlsplit(url).scheme in ("http", "https")]
                missing = [url for url in web if self.locate(url) is None]
                wanted.update({url: self.cache / cache_name(url) for url in missing})
        chosen = self.options
        limits = download.Limits(chosen.download_workers, chosen.download_timeout, chosen.download_retries)
        tally = download.fetch_all(wanted, self.cache, limits, quiet)
        _dead_links.cache_clear()
        if not quiet and tally:
            print("download: " + ", ".join(f"{reason} {count}" for reason, count in sorted(tally.items())))

    def sources(self, item: Item) -> Iterator[str]:
        """The pictures that are in the cache."""
        with contextlib.suppress(BadItem):
            urls = parse(item.payload["row"])[0]
            yield from (str(path) for url in urls if (path := self.locate(url)) is not None)

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields one triplet if enough annotators agree and its three pictures are in the cache."""
        urls, boxes, kind, votes = parse(item.payload["row"])
        choice, agreement = agreed(votes)
        if agreement < self.options.min_agreement - 1e-9:
            raise Dropped("the annotators disagree")
        found = {url: path for url in urls if (path := self.locate(url)) is not None}
        missing = [url for url in urls if url not in found]
        if missing:
            dead = _dead_links(self.cache)
            why = next((dead[url] for url in missing if url in dead), "")
            if why:
                raise Dropped(f"a picture's link is dead ({why})")
            raise Dropped("a picture is not in the cache (dead link or not downloaded)")
        crops = [jpeg(self._cut(found[url], box)) for url, box in zip(urls, boxes, strict=True)]
        yield {
            "name": item.key,
            "images": crops,
            "odd": choice - 1,
            "type": kind,
            "agreement": np.float32(agreement),
        }

    def locate(self, url: str) -> pathlib.Path | None:
        """The local file of an address, or None if there is no such file."""
        address = urllib.parse.urlsplit(url)
        if address.scheme == "file":
            candidates = [pathlib.Path(urllib.parse.unquote(address.path))]
        else:
            candidates = [self.cache / cache_name(url), self.cache / pathlib.PurePosixPath(address.path).name]
        with contextlib.suppress(OSError):  # a name may be longer than the file system allows
            return next((path for path in candidates if path.is_file()), None)
        return None

    def _cut(self, path: pathlib.Path, box: Box) -> bytes:
        picture = stills.read(path, self.options.max_megapixels)
        height, width = picture.shape[:2]
        left, right, top, bottom = box
        side = max((right - left) * width, (bottom - top) * height)
        if side < 1:
            raise BadItem(f"picture {path.name}: its face box is empty")
        face = Face((left + right) / 2 * width, (top + bottom) / 2 * height, side)
        options = FaceOptions(crop_size=self.options.crop_size, margin=self.options.margin)
        return encode_image(crop(picture, face, options), self.options.image_format)


def agreed(votes: Sequence[int]) -> tuple[int, float]:
    """The most frequent answer, 1..3, and the share of annotators who gave it."""
    choice, count = Counter(votes).most_common(1)[0]
    return choice, count / len(votes)


@functools.lru_cache(maxsize=2)
def _dead_links(cache: pathlib.Path) -> dict[str, str]:
    return download.dead_links(cache)


def parse(row: Sequence[str]) -> tuple[list[str], list[Box], int, list[int]]:
    """Reads a row of the lists. Rows are ragged: each annotator adds two cells.

    Returns:
      three addresses, three boxes, the type of triplet (0..2), and the annotators' answers 1..3, each of which names
      the picture *outside* the similar pair.

    Raises:
      BadItem: cells are missing or cannot be read.
    """
    if len(row) < TYPE_COLUMN + 3:
        raise BadItem(f"{len(row)} cells, at least {TYPE_COLUMN + 3} expected")
    try:
        urls = [row[5 * i].strip() for i in range(3)]
        boxes = [tuple(float(row[5 * i + j]) for j in range(1, 5)) for i in range(3)]
        kind = TRIPLET_TYPES.index(row[TYPE_COLUMN].strip())
        answers = [int(cell) for cell in row[TYPE_COLUMN + 2 :: 2] if cell.strip()]
        for url in urls:
            urllib.parse.urlsplit(url)
    except ValueError as error:
        raise BadItem(f"an address, a box, the triplet's type or an answer cannot be read: {error}") from error
    if not all(math.isfinite(side) for box in boxes for side in box):
        raise BadItem("a box is not finite")
    if not answers or not set(answers) <= {1, 2, 3}:
        raise BadItem(f"answers must be 1, 2 or 3, found {sorted(set(answers))}")
    return urls, boxes, kind, answers
