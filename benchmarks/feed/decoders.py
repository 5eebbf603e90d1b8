"""Ways to get a face of 140 px from a stored JPEG of 224 px: microseconds on one core, the least of many turns."""

import random
import time
from collections.abc import Callable

import cv2
import numpy as np

from media import small_jpeg

SIZE, TURNS, PICTURES = 140, 200, 8

Decode = Callable[[bytes], np.ndarray]


def table(pictures: list[bytes]) -> str:
    """The table; a short turn of each way after the other, so that what else the machine does slows all alike."""
    cv2.setNumThreads(1)
    ways = {**_opencv(), **_simplejpeg()}
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(TURNS):
        chosen = random.sample(pictures, PICTURES)
        for name, decode in ways.items():
            began = time.perf_counter()
            for data in chosen:
                decode(data)
            least[name] = min(least[name], (time.perf_counter() - began) / PICTURES)
    rows = [f"| {name} | {1e6 * seconds:.0f} | {1 / seconds:,.0f} |" for name, seconds in least.items()]
    return "\n".join(["", "| 224 px to 140 px | us | faces/s |", "|---|---|---|", *rows])


def _opencv() -> dict[str, Decode]:
    def whole(data: bytes) -> np.ndarray:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    def then(kind: int) -> Decode:
        return lambda data: cv2.resize(whole(data), (SIZE, SIZE), interpolation=kind)

    return {
        "OpenCV, decoded whole, 224 px": whole,
        "OpenCV, decoded whole, areas averaged": then(cv2.INTER_AREA),
        "OpenCV, decoded whole, bilinear": then(cv2.INTER_LINEAR),
    }


def _simplejpeg() -> dict[str, Decode]:
    if small_jpeg.simplejpeg is None:
        return {}

    def scaled(data: bytes) -> np.ndarray:
        found = small_jpeg.decode_small(data, SIZE)
        assert found is not None
        return found

    return {
        "simplejpeg, decoded whole, 224 px": lambda data: small_jpeg.simplejpeg.decode_jpeg(data, "RGB"),
        "simplejpeg, decoded at 5/8": scaled,
    }
