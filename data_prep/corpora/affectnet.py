"""AffectNet (Mollahosseini et al. 2017): faces from the web with an expression and valence/arousal.

Reads both releases: the new one (224×224 crops with one `.npy` per label) and the old one (pictures, boxes, lists).
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_prep import stills, tables
from data_prep.corpora.base import Corpus, Item
from media.container import SizeLimit
from media.errors import BadItem, Dropped, UserError
from media.faces import Face, FaceOptions, crop
from media.images import check_image_format, encode_image
from media.records import CLASSES, face_record, faces_features

ALPHABETICAL = tuple(sorted(CLASSES))
TRAIN_COUNTS = (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750)  # of the new release, classes 0-7

OLD_COLUMNS = (
    "subDirectory_filePath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
)

CITATION = (
    "Mollahosseini, Hasani, Mahoor: AffectNet: A Database for Facial Expression, Valence, and Arousal Computing in the "
    "Wild. IEEE Transactions on Affective Computing, 2017."
)


@dataclasses.dataclass(frozen=True)
class Options(SizeLimit):
    """Options of AffectNet.

    image_size: side of the stored pictures in pixels; 0 keeps that of the picture (new release) or the box (old one).
    margin: share of the face box added on every side (old release). class_order: "affectnet", or "alphabetical" for a
    re-pack that numbers the sorted names. image_format: of the stored pictures, "jpeg" or "webp". contempt: False
    leaves this class out, for results on seven classes.
    """

    image_size: int = 0
    margin: float = 0.15
    class_order: str = "affectnet"
    image_format: str = "jpeg"
    contempt: bool = True

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes to keep, in AffectNet's order, in which contempt is the last."""
        return CLASSES if self.contempt else CLASSES[:-1]

    def check(self) -> None:
        """Raises a `UserError` if a value cannot work."""
        check_image_format(self.image_format)
        self.check_reading()
        if self.class_order not in ("affectnet", "alphabetical"):
            raise UserError(f"--class_order is affectnet or alphabetical, not {self.class_order!r}.")
        if self.image_size < 0:
            raise UserError(f"--image_size must not be negative, it is {self.image_size}.")


class AffectNet(Corpus):
    """The manually annotated pictures: labelled faces. The official validation set becomes `dev`."""

    name = "affectnet"
    kind = "faces"
    title = "AffectNet, manually annotated: 8 expressions, valence and arousal"
    citation = CITATION
    licence = "on request, research only: http://mohammadmahoor.com/affectnet-request-form/"
    homepage = "http://mohammadmahoor.com/affectnet/"
    access = "Ask at http://mohammadmahoor.com/affectnet-request-form/; the link to the files comes by mail."
    layout = """
        new release: {train_set,val_set}/images/<id>.jpg and {train_set,val_set}/annotations/<id>_{exp,val,aro}.npy
        old release: Manually_Annotated_Images/<n>/<hash>.jpg and
        Manually_Annotated_file_lists/{training,validation}.csv
    """
    Options = Options
    _old_images, _old_lists = "Manually_Annotated_Images", "Manually_Annotated_file_lists"
    _old_files = (("training.csv", "train"), ("validation.csv", "dev"))
    _labelled = True

    def features(self) -> tfds.features.FeaturesDict:
        """Schema of the records."""
        return faces_features(self.options.classes, self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Lists every annotated picture."""
        items = self._new_items() if self._labelled else []
        items = items or self._old_items()
        if not items:
            raise self.wrong_layout("it has the folders of neither release")
        return items

    def _new_items(self) -> list[Item]:
        items = []
        for folder, split in (("train_set", "train"), ("val_set", "dev")):
            for path in (
                self.files(self.source / folder / "images", (".jpg", ".jpeg", ".png"), recursive=False)
                if (self.source / folder / "images").is_dir()
                else ()
            ):
                items.append(Item(f"{folder}/{path.name}", split, payload={"release": "new", "image": str(path)}))
        return items

    def _old_items(self) -> list[Item]:
        items, seen = [], set()
        for name, split in self._old_files:
            path = self.source / self._old_lists / name
            if not path.is_file():
                continue
            with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
                for number, row in tables.cells(file):
                    # Some copies of validation.csv have no header, so the first row may be data.
                    if row[0] == OLD_COLUMNS[0]:
                        continue
                    if len(row) < len(OLD_COLUMNS):
                        bad = f"{path.name}, line {number}: {len(row)} columns, {len(OLD_COLUMNS)} expected"
                        items.append(Item(f"{name}:{number}", split, payload={"release": "bad", "image": bad}))
                        continue
                    if row[0] in seen:
                        continue
                    seen.add(row[0])
                    values = dict(zip(OLD_COLUMNS, row, strict=False))
                    values.pop("facial_landmarks")
                    image = str(self.source / self._old_images / row[0])
                    items.append(Item(row[0], split, payload={"release": "old", "image": image, **values}))
        return items

    def sources(self, item: Item) -> Iterator[str]:
        """The picture, and in the new release its labels."""
        path = pathlib.Path(item.payload["image"])
        yield str(path)
        if item.payload["release"] == "new":
            yield from (str(label) for label in _label_files(path))

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields one face. None, Uncertain and No face (8, 9, 10) are left out; −2 means no valence and arousal."""
        if item.payload["release"] == "bad":
            raise BadItem(item.payload["image"])
        path = pathlib.Path(item.payload["image"])
        if item.payload["release"] == "new":
            code, valence, arousal = self._new_labels(path)
        else:
            code, valence, arousal = (_number(item.payload[n], n) for n in ("expression", "valence", "arousal"))
        if not self._labelled:
            code = -1
        elif code in (8, 9, 10):
            raise Dropped({8: "no expression (8)", 9: "uncertain (9)", 10: "no face (10)"}[int(code)])
        elif code not in range(8):
            raise BadItem(f"expression {code:g} is not one of 0 to 10")
        label = int(code)
        if label >= 0 and self.options.class_order == "alphabetical":
            label = CLASSES.index(ALPHABETICAL[label])
        if label >= len(self.options.classes):
            raise Dropped("contempt, left out on request")
        if not self._labelled or valence < -1 or arousal < -1:
            valence = arousal = math.nan
        if item.payload["release"] == "new":
            form = self.options.image_size, self.options.image_format, self.options.max_megapixels
            image = stills.read_encoded(path, *form)
        else:
            image = self._cut(path, item.payload)
        classes = len(self.options.classes)
        yield face_record(item.key, image, label=label, valence=valence, arousal=arousal, num_classes=classes)

    def _new_labels(self, path: pathlib.Path) -> tuple[float, float, float]:
        values = []
        for label in _label_files(path):
            try:
                value = np.load(label, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise BadItem(f"annotation {label.name} is missing or unreadable") from error
            values.append(_number(np.asarray(value).reshape(-1)[0] if np.size(value) else "", label.name))
        return values[0], values[1], values[2]

    def _cut(self, path: pathlib.Path, row: Mapping[str, Any]) -> bytes:
        picture = stills.read(path, self.options.max_megapixels)
        x, y, width, height = (_number(row[n], n) for n in ("face_x", "face_y", "face_width", "face_height"))
        side = max(width, height)
        if side <= 0:
            raise BadItem(f"picture {path.name}: its face box is empty")
        size = self.options.image_size or round(side * (1 + 2 * self.options.margin))
        box = Face(x + width / 2, y + height / 2, side)
        cut = crop(picture, box, FaceOptions(crop_size=size, margin=self.options.margin))
        return encode_image(cut, self.options.image_format)

    def review(self, labels: Mapping[str, Mapping[str, int]]) -> None:
        """Refuses a re-pack with alphabetical classes, recognised by label counts that fit only that order."""
        counts = np.array([labels.get("train", {}).get(str(i), 0) for i in range(len(CLASSES))], np.float64)
        if counts.sum() < 200 or self.options.class_order != "affectnet":
            return

        def fit(expected: Sequence[float]) -> float:
            other = np.asarray(expected, np.float64)
            return float(counts @ other / (np.linalg.norm(counts) * np.linalg.norm(other)))

        by_alphabet = [TRAIN_COUNTS[CLASSES.index(name)] for name in ALPHABETICAL]
        if fit(by_alphabet) > 0.98 and fit(TRAIN_COUNTS) < 0.9:
            raise UserError(
                f"{self.source}: the classes seem to be numbered alphabetically (the label counts fit that order, not "
                "AffectNet's): run again with --class_order=alphabetical."
            )


class AffectNetAutomatic(AffectNet):
    """The automatically annotated pictures, used as unlabelled faces for distillation."""

    name = "affectnet_automatic"
    title = "AffectNet, automatically annotated: used as unlabelled faces"
    layout = """
        Automatically_Annotated_Images/<n>/<hash>.jpg and Automatically_Annotated_file_lists/automatically_annotated.csv
    """
    _old_images, _old_lists = "Automatically_Annotated_Images", "Automatically_Annotated_file_lists"
    _old_files = (("automatically_annotated.csv", "train"), ("Automatically_annotated_file_list.csv", "train"))
    _labelled = False


def _label_files(path: pathlib.Path) -> list[pathlib.Path]:
    """The files with expression, valence and arousal of a picture of the new release."""
    return [path.parent.parent / "annotations" / f"{path.stem}_{kind}.npy" for kind in ("exp", "val", "aro")]


def _number(value: Any, where: str) -> float:
    """Reads a number that may be stored as a string, as in the new release's `.npy` files."""
    try:
        number = float(value.decode() if isinstance(value, bytes) else value)
    except ValueError as error:
        raise BadItem(f"{where}: {value!r} is not a number") from error
    if not math.isfinite(number):
        raise BadItem(f"{where}: {value!r} is not a finite number")
    return number
