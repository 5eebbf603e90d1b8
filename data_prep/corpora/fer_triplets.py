"""Triplets of expressions made from the votes of FER+."""

import dataclasses
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_prep import stills
from data_prep.corpora import fer
from data_prep.corpora.base import Corpus, Item
from media.errors import UserError
from media.records import CLASSES, jpeg, triplets_features


@dataclasses.dataclass(frozen=True)
class Options(fer.Options):
    """Options of the triplets.

    image_size, image_format, holdout: as for the faces. train, dev, test: number of triplets per split, each made from
    that split's pictures. min_margin: how much nearer the similar pair must be than either other pair (distance of vote
    vectors, 0 to √2). seed: of the draw.
    """

    train: int = 20000
    dev: int = 3000
    test: int = 3000
    min_margin: float = 0.3
    seed: int = 0

    def check(self) -> None:
        """Raises a `UserError` if a value cannot work."""
        super().check()
        if not 0 <= self.min_margin < math.sqrt(2):
            raise UserError(f"--min_margin is a distance of votes, 0 to 1.41, not {self.min_margin}.")
        if min(self.train, self.dev, self.test) < 0:
            raise UserError("--train, --dev and --test are numbers of triplets and must not be negative.")


class FERTriplets(Corpus):
    """Triplets from the raters' votes: the two nearest of three pictures against the third, if the margin is clear.

    The type is FEC's: the number of expressions (most-voted classes) that the three show. The types are made in equal
    numbers, as far as possible. `agreement` is the margin between the similar pair and the nearer of the other pairs.
    """

    name = "fer_triplets"
    kind = "triplets"
    title = "Triplets of expressions made from the votes of FER+"
    citation = fer.CITATION
    licence = fer.FER.licence
    homepage = fer.FER.homepage
    access = fer.FER.access
    layout = fer.LAYOUT
    chunk = 256
    Options = Options

    def features(self) -> tfds.features.FeaturesDict:
        """Schema of the records."""
        return triplets_features(image_format=self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Draws the triplets; the same seed gives the same triplets."""
        items: list[Item] = []
        rated: dict[str, list[fer.Rated]] = {}
        for split, picture in self.options.rated(self.source):
            if not picture.dropped:
                rated.setdefault(split, []).append(picture)
        for split, usable in rated.items():
            wanted = getattr(self.options, split)
            if len(usable) >= 3 and wanted:
                items += self._draw(split, usable, wanted)
        if not items:
            raise self.wrong_layout("FER2013Train.zip is missing or empty")
        return items

    def _draw(self, split: str, usable: list[fer.Rated], wanted: int) -> list[Item]:
        rng = random.Random(f"{self.options.seed} {split}")
        votes = np.stack([picture.votes for picture in usable])
        top = votes.argmax(axis=1)
        by_class = [np.flatnonzero(top == c) for c in range(len(CLASSES))]
        present = [c for c in range(len(CLASSES)) if len(by_class[c]) >= 3]
        seen: set[frozenset[int]] = set()
        out: list[Item] = []
        made, tried = [0, 0, 0], [0, 0, 0]
        while len(out) < wanted:
            # Make the type that is rarest so far, unless too many tries have failed.
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
            pictures = [[usable[i].folder, usable[i].name] for i in chosen]
            payload = {"pictures": pictures, "odd": odd, "type": kind, "margin": margin}
            out.append(Item(f"{split}/{len(out):06d}", split, payload=payload))
        return out

    def sources(self, item: Item) -> Iterator[str]:
        """The pictures' files."""
        yield from (fer.Pictures.file(self.source, folder, name) for folder, name in item.payload["pictures"])

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields one triplet."""
        pictures = [(name, fer.Pictures.read(self.source, folder, name)) for folder, name in item.payload["pictures"]]
        form = self.options.image_size, self.options.image_format, self.options.max_megapixels
        yield {
            "name": item.key,
            "images": [jpeg(stills.recoded(data, name, *form)) for name, data in pictures],
            "odd": item.payload["odd"],
            "type": item.payload["type"],
            "agreement": np.float32(item.payload["margin"]),
        }


def odd_one_out(votes: np.ndarray) -> tuple[int, float]:
    """Which of three vote vectors `[3, C]` is outside the nearest pair, and by what margin of Euclidean distance."""
    opposite = np.array([np.linalg.norm(votes[(i + 1) % 3] - votes[(i + 2) % 3]) for i in range(3)])
    odd = int(opposite.argmin())
    return odd, float(np.partition(opposite, 1)[1] - opposite[odd])
