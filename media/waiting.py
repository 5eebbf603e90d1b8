"""Says what a command is waiting for, if the wait is long enough to wonder."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

logger = logging.getLogger(__name__)
PATIENCE = 2.0  # s


@contextlib.contextmanager
def waiting(what: str, patience: float = PATIENCE) -> Iterator[None]:
    """Logs `what…` if the block takes longer than `patience` s, and at its end how long it took."""
    began = time.monotonic()
    timer = threading.Timer(patience, logger.info, ("%s…", what))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        seconds = time.monotonic() - began
        if seconds > patience:
            logger.info("%s: %.0f s.", what, seconds)
