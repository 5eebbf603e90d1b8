"""Zip files and NumPy's `.npz` from anybody: no size that such a file claims is believed before it is checked."""

import io
import math
import os
import struct
import zipfile
import zlib
from typing import IO

import numpy as np
from numpy.lib import format as npy

DIRECTORY = 4 << 20  # bytes of names and sizes, some 60,000 files
LARGEST = 256 << 20  # bytes that a small .npz may unpack to
RATIO = 4  # …and a large one: so many times its size. Floats compress by less.
_END, _LOCATOR = b"PK\x05\x06", b"PK\x06\x07"
# What reading a zip file or .npz raises if its bytes are damaged. RuntimeError: a password.
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    MemoryError,
)


def open_zip(file: IO[bytes]) -> zipfile.ZipFile:
    """Opens a zip file for reading, if its directory is not absurdly long.

    Raises:
      zipfile.BadZipFile, ValueError, …: it is not a readable one (`BROKEN`).
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - (1 << 16) - 22))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile("no directory at its end")
    (length,) = struct.unpack_from("<I", tail, at + 12)
    if at >= 76 and tail[at - 20 :].startswith(_LOCATOR):  # zip64: its record is before the locator, and counts instead
        (length,) = struct.unpack_from("<Q", tail, at - 76 + 40)
    if length > DIRECTORY:
        raise zipfile.BadZipFile(f"a directory of {length} bytes")
    file.seek(0)
    return zipfile.ZipFile(file)


def read_npz(file: IO[bytes]) -> dict[str, np.ndarray]:
    """Reads the arrays of an `.npz` by name: numbers, booleans and text; never a pickle.

    Raises:
      zipfile.BadZipFile, ValueError, …: it is damaged, or unpacks to far more than it is (`BROKEN`).
    """
    size = file.seek(0, os.SEEK_END)
    with open_zip(file) as archive:
        entries = archive.infolist()
        total = sum(entry.file_size for entry in entries)
        if total > max(LARGEST, RATIO * size):
            raise ValueError(f"{size} bytes that unpack to {total}")
        return {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in entries}


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    data = archive.read(entry)
    stream = io.BytesIO(data)
    reader = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, dtype = reader(stream)
    begin = stream.tell()
    if dtype.kind not in "biufUS" or not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f"{entry.filename} is an array {list(shape)} of {dtype}")
    if math.prod(shape) * dtype.itemsize != len(data) - begin:
        raise ValueError(f"{entry.filename} has {len(data) - begin} bytes for an array {list(shape)} of {dtype}")
    values = np.frombuffer(data, dtype, offset=begin)
    return values.reshape(shape, order="F" if by_columns else "C").copy(order="K")
