"""Child processes that end with their parent, even if that is killed. `python -m media.processes PARENT COMMAND…`."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def ending_with_this(*command: str) -> tuple[str, ...]:
    """Returns the command line that runs a command which gets SIGTERM when this process ends.

    `media` has to be on the child's path. Nothing is run between fork and exec, which would not be safe in a process
    with threads.
    """
    return (sys.executable, "-m", __name__, str(os.getpid()), *command)


def end_with(parent: int) -> None:
    """Lets this process get SIGTERM when its parent ends; no more than that on systems other than Linux.

    Args:
      parent: the parent's process id, taken in the parent, which may have ended by now.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
