"""Ctrl-C and SIGTERM: both unwind a command, so that it leaves nothing half-made; its workers end with it."""

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import ParamSpec

P = ParamSpec("P")


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


@contextlib.contextmanager
def termination() -> Iterator[None]:
    """Lets SIGTERM raise `Terminated` in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def ends_when_stopped(what_is_left: str) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Makes a command end with one line and status 130 after Ctrl-C, or 143 after SIGTERM.

    Args:
      what_is_left: completes the line, such as "nothing is left; run the same command again".
    """

    def decorate(main: Callable[P, int]) -> Callable[P, int]:
        @functools.wraps(main)
        def command(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                with termination():
                    return main(*args, **kwargs)
            except KeyboardInterrupt as stopped:
                terminated = isinstance(stopped, Terminated)
                print(f"{'terminated' if terminated else 'interrupted'}: {what_is_left}", file=sys.stderr)
                return 128 + (signal.SIGTERM if terminated else signal.SIGINT)

        return command

    return decorate


def end_with_parent() -> None:
    """Lets a worker of `multiprocessing` end when the process that started it ends, even if that was killed.

    Ctrl-C is left to the parent. `PR_SET_PDEATHSIG` would not do: to the system the parent of such a worker is the fork
    server, which lives as long as a worker does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
