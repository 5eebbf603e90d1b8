"""Unlabelled faces from any folder of videos or pictures, on which the student is distilled."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from data_prep import stills
from data_prep.corpora.base import Corpus, Item
from media import video
from media.container import ReadOptions, SizeLimit
from media.errors import Dropped, UserError
from media.faces import FaceOptions, Follower
from media.files import shown
from media.records import face_record, faces_features


@dataclasses.dataclass(frozen=True)
class Options(FaceOptions, SizeLimit):
    """Options of unlabelled faces, besides those of face detection and `SizeLimit`.

    fps: frames taken from each second of a video. detect_images: also detect the face in still pictures; False means
    that they are face crops already and are stored as they are. image_size: side of those pictures in pixels, 0 keeps
    their size.
    """

    fps: float = 2.0
    detect_images: bool = False
    image_size: int = 0

    def check(self) -> None:
        """Raises a `UserError` if a value cannot work."""
        super().check()
        self.check_reading()
        if self.fps <= 0:
            raise UserError(f"--fps must be above 0, it is {self.fps}.")


class UnlabelledFaces(Corpus):
    """Faces from every video and picture below a folder, without labels, all in `train`."""

    name = "unlabelled"
    kind = "faces"
    title = "Unlabelled faces from any folder of videos or pictures"
    licence = "that of your files"
    access = "Your own files."
    layout = "any tree of videos (mp4, mov, mkv, webm, avi, mpg, mts, gif, …) and pictures (jpg, png, webp, tif, …)"
    chunk = 8
    Options = Options

    def features(self) -> tfds.features.FeaturesDict:
        """Schema of the records."""
        return faces_features(image_format=self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Lists every video and picture."""
        paths = self.files_of_any_name(_may_show_faces)
        return [Item(shown(path.relative_to(self.source)), "train", payload={"path": str(path)}) for path in paths]

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields the faces of one file, leaving out frames without a face."""
        path = pathlib.Path(item.payload["path"])
        most = self.options.max_megapixels
        if path.suffix.lower() not in video.IMAGE_SUFFIXES:
            if not video.has_picture(path):
                raise Dropped("it is sound without a picture")
            frames = video.decode(path, fps=self.options.fps, threads=1, options=ReadOptions(most))
        elif self.options.detect_images:
            frames = iter([video.Frame(0.0, stills.read(path, most))])
        else:
            form = self.options.image_size, self.options.image_format, most
            yield face_record(item.key, stills.read_encoded(path, *form))
            return
        # At so few frames per second a face cannot be tracked from its neighbours, so every frame is searched.
        follow = Follower(dataclasses.replace(self.options, detect_every=1))
        found = 0
        for number, face in enumerate(follow(frames)):
            if face.mask:
                found += 1
                yield face_record(f"{item.key}@{number}", face.jpeg)
        if not found:
            raise Dropped("no face was found in it")


def _may_show_faces(path: pathlib.Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in video.IMAGE_SUFFIXES or (suffix not in video.SOUND_SUFFIXES and video.is_recording(path))
