"""Random access to the records of a prepared data set (a TFDS folder), without TensorFlow.

`data_prep` and `extract` write data sets: `features.json` (the schema), `dataset_info.json` (splits and shard lengths)
and ArrayRecord or TFRecord files. Both formats are read by position, so the order of training is the same for both and
a pure function of seed and step. TFRecord on gs:// is read through epath (`gcsfs`), ArrayRecord by its own client.
"""

import bisect
import dataclasses
import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from etils import epath

from avemo.data import schema
from media import digests, small_jpeg
from media.errors import UserError, unknown
from media.files import storage_errors
from media.tfrecord import masked_crc


def find_dataset(folder: str | epath.Path) -> epath.Path:
    """Returns the TFDS version folder at `folder` or up to two levels below it; of several versions, the newest.

    Raises:
      UserError: no prepared data set was found, or several different ones.
    """
    folder = epath.Path(folder)
    if not folder.exists():
        raise UserError(f"no data set at {folder}: the folder does not exist. Prepare one with `python -m data_prep`.")
    if (folder / "features.json").exists():
        return folder
    below = [p.parent for pattern in ("*/features.json", "*/*/features.json") for p in folder.glob(pattern)]
    if not below:
        hint = (
            " (it has an `incomplete` folder: the preparation was interrupted; run it again)"
            if any("incomplete" in p.name for p in folder.iterdir())
            else ""
        )
        raise UserError(f"no prepared data set in {folder}: no features.json in it or below it{hint}.")
    if len({p.parent for p in below}) > 1:
        names = ", ".join(sorted(str(p) for p in below))
        raise UserError(f"{folder} holds several data sets: name one of {names}.")
    return max(below, key=lambda p: tuple(int(n) for n in p.name.split(".") if n.isdigit()))


class _TFRecordFile:
    """A TFRecord file as a sequence of records. One pass over the length headers finds the offsets."""

    def __init__(self, path: epath.Path, expected: int | None) -> None:
        self._path = path
        self._spans: list[tuple[int, int]] = []
        with storage_errors(path), path.open("rb") as file:
            offset, size = 0, path.stat().length
            while offset < size:
                header = file.read(12)
                length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else size
                if offset + 16 + length > size:
                    raise UserError(f"{path} is cut short in record {len(self._spans)}: prepare the data set again.")
                self._spans.append((offset + 12, length))
                offset += 16 + length
                file.seek(offset)
        if expected is not None and len(self._spans) != expected:
            raise UserError(f"{path} has {len(self._spans)} records, {expected} expected: prepare the data set again.")

    def __len__(self) -> int:
        return len(self._spans)

    def read(self, position: int) -> bytes:
        offset, length = self._spans[position]
        # One handle per call, because grain reads from several threads.
        with storage_errors(self._path), self._path.open("rb") as file:
            file.seek(offset)
            data, checksum = file.read(length), file.read(4)
        if masked_crc(data) != checksum:
            raise UserError(f"{self._path} is damaged in record {position}: prepare the data set again.")
        return data


def _read_through(path: epath.Path) -> None:
    """Raises a `UserError` if the storage does not give a file."""
    with storage_errors(path), path.open("rb") as file:
        while file.read(1 << 24):
            pass


class _ArrayRecordFile:
    """An ArrayRecord file as a sequence of records."""

    def __init__(self, path: epath.Path, expected: int | None) -> None:
        from array_record.python import array_record_data_source

        self._path = path
        try:
            self._source = array_record_data_source.ArrayRecordDataSource([str(path)])
            found = len(self._source)
        except RuntimeError as error:  # raised for a damaged file and for a failing disk alike
            _read_through(path)
            raise UserError(f"{path} is not a readable ArrayRecord file: prepare the data set again.") from error
        if expected is not None and found != expected:
            raise UserError(f"{path} has {found} records, {expected} expected: prepare the data set again.")

    def __len__(self) -> int:
        return len(self._source)

    def read(self, position: int) -> bytes:
        try:
            return self._source[position]  # __getitems__ would start a thread pool for each call
        except Exception as error:  # its readers have no type of error for damage
            _read_through(self._path)
            raise UserError(f"{self._path} is damaged in record {position}: prepare the data set again.") from error


@dataclasses.dataclass(frozen=True)
class Images:
    """The encoded images of one record; `decode(i)` returns uint8 RGB `[H, W, 3]`."""

    encoded: Sequence[bytes]
    where: str

    def __len__(self) -> int:
        return len(self.encoded)

    def sides(self, index: int) -> tuple[int, int]:
        """Height and width of image `index`, from its header if it is a JPEG."""
        header = small_jpeg.header(self.encoded[index])
        return (header.height, header.width) if header else self.decode(index).shape[:2]

    def decode(self, index: int, at_least: int = 0) -> np.ndarray:
        """Decodes image `index` to uint8 `[H, W, 3]` RGB.

        Args:
          index: position among the record's images.
          at_least: if above 0, a JPEG may come out smaller, as long as both sides stay at least this long.
        """
        data = self.encoded[index]
        if at_least and (small := small_jpeg.decode_small(data, at_least)) is not None:
            return small
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if image is None:
            raise UserError(f"{self.where}: image {index} cannot be decoded: prepare the data set again.")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


class Shards:
    """One split of a prepared data set as a random-access source of parsed records (grain's `RandomAccessDataSource`).

    Scalars and tensors are NumPy values of the schema's dtypes, text is `str`, and images are undecoded `Images`.
    """

    def __init__(self, folder: str | epath.Path, split: str) -> None:
        from tensorflow_datasets.core import example_parser
        from tensorflow_datasets.proto import tf_example_pb2

        self.folder, self.split = find_dataset(folder), split
        builder = schema.open_dataset(self.folder)
        if split not in builder.info.splits:
            raise unknown(f"split of {self.folder}", split, builder.info.splits)
        self.features = builder.info.features
        self._parser = example_parser.ExampleParserNp(self.features.get_serialized_info())
        self._parse = tf_example_pb2.Example.FromString
        readers = {name: self._reader(name, feature) for name, feature in self.features.items()}
        self._readers = {name: read for name, read in readers.items() if read is not None}
        info = builder.info.splits[split]
        reader = _TFRecordFile if "tfrecord" in info.filename_template.filetype_suffix else _ArrayRecordFile
        self._files, self._ends, total = [], [], 0
        for name, length in zip(info.filenames, info.shard_lengths, strict=True):
            path = self.folder / name
            if not path.exists():
                raise UserError(f"shard {path} is missing: prepare the data set again.")
            self._files.append(reader(path, length))
            total += length
            self._ends.append(total)
        if not total:
            raise UserError(f"split {split!r} of {self.folder} is empty.")

    def __len__(self) -> int:
        return self._ends[-1]

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return Shards, (str(self.folder), self.split)  # another process opens the files itself

    def __repr__(self) -> str:
        return f"Shards({self.folder}, {self.split!r})"

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._decode(index, self.features)

    def fields(self, index: int, names: Sequence[str]) -> tuple[Any, ...]:
        """Reads only the named fields of one record."""
        record = self._decode(index, names)
        return tuple(record[name] for name in names)

    def _decode(self, index: int, names: Iterable[str]) -> dict[str, Any]:
        index = int(index) % len(self)
        shard = bisect.bisect_right(self._ends, index)
        record = self._files[shard].read(index - (self._ends[shard - 1] if shard else 0))
        stored = self._parse(record).features.feature
        whole = None
        out = {}
        for name in names:
            read = self._readers.get(name)
            if read is not None:
                out[name] = read(stored, index)
                continue
            whole = whole or self._parser.parse_example(record)
            out[name] = _tensor(whole[name], self.features[name])
        return out

    def _reader(self, name: str, feature: Any) -> Callable[[Any, int], Any] | None:
        """Returns a function that reads a field from a parsed record, or None if TFDS's parser has to unpack it.

        TFDS's parser makes an array of every field, which for a face costs as much as decoding the JPEG.
        """
        import tensorflow_datasets as tfds

        where = f"{self.folder} {self.split}"
        if isinstance(getattr(feature, "feature", feature), tfds.features.Image):
            return lambda stored, index: Images(stored[name].bytes_list.value, f"{where}[{index}] {name}")
        if isinstance(feature, tfds.features.Text):
            return lambda stored, index: stored[name].bytes_list.value[0].decode()
        dtype, shape = np.dtype(feature.np_dtype), tuple(-1 if n is None else n for n in feature.shape)
        if shape.count(-1) > 1 or dtype.kind not in "fiub" or "NONE" not in str(getattr(feature, "_encoding", "NONE")):
            return None
        values = "float_list" if dtype.kind == "f" else "int64_list"
        if not shape:
            return lambda stored, index: dtype.type(getattr(stored[name], values).value[0])
        empty = tuple(0 if n == -1 else n for n in shape)

        def array(stored: Any, index: int) -> np.ndarray:
            found = np.array(getattr(stored[name], values).value, dtype)
            return found.reshape(shape if found.size else empty)

        return array

    @property
    def class_names(self) -> list[str]:
        """Names of the classes of the `label` field, in order; empty if labels are plain integers."""
        # FeaturesDict has no `get`.
        label = self.features["label"] if "label" in self.features else None  # noqa: SIM401
        return list(getattr(label, "names", None) or [])


def _tensor(value: Any, feature: Any) -> np.ndarray:
    """Converts a TFDS `Tensor` or scalar to an array: resolves free axes and unpacks encoded tensors."""
    shape = tuple(-1 if n is None else n for n in feature.shape)
    if isinstance(value, dict):  # with several free axes, the shape is stored beside the bytes
        shape, value = tuple(int(n) for n in value["shape"]), value["value"]
    if isinstance(value, bytes):
        encoding = str(getattr(feature, "_encoding", ""))
        array = np.frombuffer(zlib.decompress(value) if "ZLIB" in encoding.upper() else value, feature.np_dtype)
    else:
        array = np.asarray(value, feature.np_dtype)
    if not array.size:
        shape = tuple(0 if n == -1 else n for n in shape)
    return array.reshape(shape)


def splits(folder: str | epath.Path) -> list[str]:
    """Names of the non-empty splits of a prepared data set."""
    info = json.loads((find_dataset(folder) / "dataset_info.json").read_text())
    return [s["name"] for s in info.get("splits", []) if sum(int(n) for n in s.get("shardLengths", []))]


def fingerprint(folder: str | epath.Path) -> str:
    """SHA-256 (first 16 hex digits) over schema, split table, and the name, size and digest of every shard.

    The digests are those that `data_prep` recorded, and every shard is checked against its own. A data set older
    than the digests keeps the fingerprint that it had, over the first and the last 64 KiB of each shard.

    Raises:
      UserError: a shard is not as it was written; the first damaged record is named, if there is one.
    """
    folder = find_dataset(folder)
    recorded = digests.read(folder)
    for path in digests.changed(folder):
        raise _changed(path)
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir(), key=lambda p: p.name):
        if path.name in ("features.json", "dataset_info.json"):
            digest.update(path.read_bytes())
        elif "record-" in path.name:
            size = path.stat().length
            digest.update(f"{path.name}:{size}".encode())
            if recorded:
                if path.name not in recorded:
                    raise UserError(
                        f"{path} was added to a finished data set: remove it, or prepare the data set again."
                    )
                digest.update(recorded[path.name].encode())
                continue
            with path.open("rb") as file:
                digest.update(file.read(1 << 16))
                file.seek(max(0, size - (1 << 16)))
                digest.update(file.read(1 << 16))
    return digest.hexdigest()[:16]


def _changed(path: epath.Path) -> UserError:
    """The error for a shard that is not as it was written."""
    if not path.exists():
        return UserError(f"shard {path} is missing: prepare the data set again.")
    try:
        file = (_TFRecordFile if ".tfrecord-" in path.name else _ArrayRecordFile)(path, None)
        for position in range(len(file)):
            file.read(position)
    except UserError as error:
        return error
    return UserError(f"shard {path} was changed since it was written: put it back, or prepare the data set again.")
