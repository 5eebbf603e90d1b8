"""Keeps what other libraries print of a failure away from the one line that says what went wrong."""

import logging
import sys
import threading
from typing import Any

from media.files import STORAGE_ERRORS

_report_thread, _report_unraisable = threading.excepthook, sys.unraisablehook


def install() -> None:
    """Leaves out what threads print of a full disk, and what Orbax both logs and raises."""
    threading.excepthook = _thread_failed
    sys.unraisablehook = _callback_failed
    for name in ("absl", "asyncio"):  # one line of ours would have hundreds of theirs beside it
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """Leaves out the traceback of a full disk in a thread, such as TensorBoard's: the command itself says so."""
    error = failed.exc_value
    if not (isinstance(error, OSError) and error.errno in STORAGE_ERRORS):
        _report_thread(failed)


def _callback_failed(failed: Any) -> None:
    """Leaves out calls into a closed event loop.

    After a save that failed, TensorStore's threads still call back into the loop of the save, once per array.
    """
    last = failed.exc_traceback
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    closed = last is not None and last.tb_frame.f_code.co_name == "_check_closed"
    if not (closed and isinstance(failed.exc_value, RuntimeError)):
        _report_unraisable(failed)
