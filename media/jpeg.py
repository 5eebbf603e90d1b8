"""The structure of a JPEG without decoding it: its size, and whether all of it is there."""

import dataclasses
import re

JPEG_MARK = b"\xff\xd8"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the markers that state the size
_ARITHMETIC = frozenset(range(0xC9, 0xD0))  # arithmetic coding needs less than a bit per block
# Inside compressed data, FF is followed by 00 or a restart marker; anything else ends it.
_NEXT = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)


@dataclasses.dataclass
class JpegScan:
    """width, height in pixels and components as the header says; exif: whether there is such a segment.

    end: where the picture ends in the data (phones append films and notes), 0 if it is cut short.
    """

    width: int = 0
    height: int = 0
    components: int = 0
    exif: bool = False
    end: int = 0


def scan_jpeg(data: bytes) -> JpegScan:
    """Walks the segments of a JPEG. A picture whose compressed data cannot hold its size counts as cut short."""
    scan, position, frame, compressed = JpegScan(), len(JPEG_MARK), 0, 0
    while found := _NEXT.search(data, position):
        marker, position = data[found.start() + 1], found.end()
        if marker == 0xD9:
            blocks = (scan.width // 8) * (scan.height // 8)  # each takes a bit or more
            scan.end = position if frame in _ARITHMETIC or 8 * compressed >= blocks else 0
            break
        if marker in (0x01, 0xD8):
            continue
        segment = data[position + 2 : position + int.from_bytes(data[position : position + 2], "big")]
        position += 2 + len(segment)
        if marker in _FRAMES and len(segment) >= 6:
            frame, scan.components = marker, segment[5]
            scan.height, scan.width = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
        elif marker == 0xE1 and segment[:4] == b"Exif":
            scan.exif = True
        elif marker == 0xDA:
            after = _NEXT.search(data, position)
            compressed += (after.start() if after else len(data)) - position
    return scan
