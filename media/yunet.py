"""YuNet's network: the file that ships with this package, or another one.

OpenCV's ONNX reader can end the whole process on a damaged file. A file whose digest is not known is therefore tried in
a child process first.
"""

import contextlib
import functools
import hashlib
import importlib.resources
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import cv2
import numpy as np

from media.errors import UserError

# MIT, see face_detection_yunet.LICENSE. A resource, so that it is found inside a zipapp too.
MODEL = importlib.resources.files("media") / "face_detection_yunet_2026may.onnx"
KNOWN = frozenset(("ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",))  # SHA-256 of `MODEL`
_CONFIDENCE, _OVERLAP, _MOST = 0.6, 0.3, 50  # the lowest confidence; of two boxes of one face; faces in a picture
_CHILD_SECONDS = 60
_TRY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import cv2, numpy as np
cv2.setNumThreads(1)
network = cv2.FaceDetectorYN.create("onnx", sys.stdin.buffer.read(), b"", (320, 320))
_, found = network.detect(np.zeros((320, 320, 3), np.uint8))
sys.exit(0 if found is None or found.shape[1] == 15 else 1)
"""


def open_network(path: str) -> cv2.FaceDetectorYN:
    """Opens YuNet from a file, or the one that ships with this package if `path` is empty.

    Raises:
      UserError: the file cannot be read, or OpenCV cannot open it as YuNet.
    """
    try:
        data = (pathlib.Path(path) if path else MODEL).read_bytes()
    except OSError as error:
        raise UserError(f"--detector_model={path} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(data).hexdigest() not in KNOWN and not _survives(data):
        raise UserError(f"{path} is not a YuNet model that OpenCV can read.")
    try:
        with _quiet():
            model, config = np.frombuffer(data, np.uint8), np.zeros(0, np.uint8)
            return cv2.FaceDetectorYN.create("onnx", model, config, (320, 320), _CONFIDENCE, _OVERLAP, _MOST)
    except cv2.error as error:
        raise UserError(f"{path} is not a YuNet model that OpenCV can read.") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV 5 warns of every network that it opens; older ones do not, and may lack the means to silence it."""
    log = getattr(cv2.utils, "logging", None)
    if log is None:
        yield
        return
    level = log.setLogLevel(log.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        log.setLogLevel(level)


@functools.lru_cache(maxsize=4)
def _survives(data: bytes) -> bool:
    """Whether a child process opens a file's content and detects with it."""
    command = [sys.executable, "-I", "-c", _TRY]
    try:
        return not subprocess.run(command, input=data, capture_output=True, timeout=_CHILD_SECONDS).returncode
    except subprocess.TimeoutExpired:
        return False
