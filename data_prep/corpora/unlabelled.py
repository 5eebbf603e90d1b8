"""Any folder of videos or pictures as unlabelled faces: what the student is distilled on beside the labelled ones."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from data_prep import stills
from data_prep.corpora.base import Corpus, Item, listing
from media import video
from media.errors import Dropped, UserError
from media.faces import FaceOptions, Follower
from media.records import face_record, faces_features


@dataclasses.dataclass(frozen=True)
class Options(FaceOptions):
    """Options of unlabelled faces beside those of face detection.

    fps: frames taken from each second of a video; detect_images: also look for the face in still pictures (False: they
    are faces already, stored as they are, image_size 0 = in their own size).
    """

    fps: float = 2.0
    detect_images: bool = False
    image_size: int = 0

    def check(self) -> None:
        """Raises a `UserError` for values that cannot work."""
        super().check()
        if self.fps <= 0:
            raise UserError(f"--fps must be above 0, it is {self.fps}.")


class UnlabelledFaces(Corpus):
    """Faces without labels from every video and picture below a folder, all in `train`."""

    name = "unlabelled"
    kind = "faces"
    title = "Unlabelled faces from any folder of videos or pictures"
    licence = "that of your files"
    access = "Your files: nothing is to be asked for."
    layout = "any tree of videos (mp4, mpg, avi, mov, mkv, flv, webm) and pictures (jpg, png, bmp, webp, tif)"
    chunk = 8
    Options = Options

    def features(self):
        """Schema of the records."""
        return faces_features(image_format=self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Every video and picture."""
        paths = listing(self.source, (*video.SUFFIXES, *video.IMAGE_SUFFIXES))
        return [Item(str(path.relative_to(self.source)), "train", payload={"path": str(path)}) for path in paths]

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """The faces of one file; frames without a face are no use here and left out."""
        path = pathlib.Path(item.payload["path"])
        if path.suffix.lower() in video.SUFFIXES:
            frames = video.decode(path, fps=self.options.fps, threads=1)
        elif self.options.detect_images:
            frames = iter([video.Frame(0.0, stills.read(path))])
        else:
            yield face_record(item.key, stills.read_encoded(path, self.options.image_size, self.options.image_format))
            return
        # So few frames a second are too far apart to know a face's place from its neighbours.
        follow = Follower(dataclasses.replace(self.options, detect_every=1))
        found = 0
        for number, face in enumerate(follow(frames)):
            if face.mask:
                found += 1
                yield face_record(f"{item.key}@{number}", face.jpeg)
        if not found:
            raise Dropped("no face was found in it")
