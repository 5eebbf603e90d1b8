"""Standard output whose reader leaves early, as in `launch.py … | head`."""

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


def ends_quietly(main: Callable[P, int]) -> Callable[P, int]:
    """Makes a command end with status 141, without a traceback, once nobody reads its standard output.

    A broken pipe of any other kind, such as a lost connection to a bucket, is raised.

    Args:
      main: runs the command and returns its exit status.
    """

    @functools.wraps(main)
    def command(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            try:
                status = main(*args, **kwargs)
            except SystemExit:  # argparse: --help, or a usage error
                print(end="", flush=True)
                raise
            print(end="", flush=True)
            return status
        except BrokenPipeError:
            if not _is_closed():
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it exits
            return 128 + signal.SIGPIPE

    return command


def _is_closed() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False
