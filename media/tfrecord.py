"""TFRecord files without TensorFlow: each record is its length and its data, both followed by a masked CRC-32C."""

import os
import pathlib
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import google_crc32c

_MASK_DELTA = 0xA282EAD8


def masked_crc(data: bytes) -> bytes:
    """Returns the CRC-32C of `data`, rotated and offset as TFRecord stores it: 4 bytes, little-endian."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF)


def append(file: BinaryIO, data: bytes) -> tuple[int, int]:
    """Appends one record to a file; returns (offset, length) of its data."""
    offset = file.tell() + 12
    length = struct.pack("<Q", len(data))
    file.write(length + masked_crc(length) + data + masked_crc(data))
    return offset, len(data)


def write(path: str | os.PathLike, records: Iterable[tuple[object, bytes]]) -> None:
    """Writes (key, data) pairs in order as one TFRecord file; the keys are not stored."""
    with open(path, "wb") as file:
        for _, data in records:
            append(file, data)


def read(path: str | os.PathLike) -> Iterator[bytes]:
    """Yields the records of a file and verifies every checksum.

    Raises:
      ValueError: the file is cut short or a checksum does not match; the message has the record's number.
    """
    with pathlib.Path(path).open("rb") as file:
        number = 0
        while header := file.read(12):
            if len(header) < 12 or masked_crc(header[:8]) != header[8:]:
                raise ValueError(f"{path}: the header of record {number} is damaged")
            (length,) = struct.unpack("<Q", header[:8])
            data, checksum = file.read(length), file.read(4)
            if len(data) < length or masked_crc(data) != checksum:
                raise ValueError(f"{path}: record {number} is damaged")
            yield data
            number += 1
