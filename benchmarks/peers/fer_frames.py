"""PyPI `fer`, frame by frame, at its default settings: the peer of `benchmarks.predict`.

Runs in a separate environment (requirements-peers.txt; `make bench-predict` makes it). Reads one path of a clip per
line and answers with one line `frames seconds faces`; the seconds are those of `detect_emotions`, without decoding. The
defaults of fer 25.10.3 are OpenCV's Haar cascade on every frame and the package's own quantised TFLite network.
"""

import sys
import time

import cv2
from fer.fer import FER


def main() -> None:
    detector = FER()
    warm = False
    print("ready", flush=True)
    for line in sys.stdin:
        film = cv2.VideoCapture(line.strip())
        frames, faces, seconds = 0, 0, 0.0
        while True:
            ok, image = film.read()
            if not ok:
                break
            if not warm:
                detector.detect_emotions(image)
                warm = True
            began = time.perf_counter()
            faces += bool(detector.detect_emotions(image))
            seconds += time.perf_counter() - began
            frames += 1
        print(frames, seconds, faces, flush=True)


if __name__ == "__main__":
    main()
