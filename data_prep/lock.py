"""The lock on a data set's folder: one preparation at a time, and whoever comes second is told who holds it."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import shlex
import socket
import sys
from collections.abc import Iterator
from typing import TextIO

from media.errors import UserError

_NAME = ".lock"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Holds the lock of an existing folder. The system releases the lock of a process that died, so it is taken over.

    Raises:
      UserError: another process holds it.
    """
    path = folder / _NAME
    file = _locked(path)
    try:
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        about = {"host": socket.gethostname(), "pid": os.getpid(), "since": since, "command": shlex.join(sys.argv)}
        file.seek(0)
        file.truncate()
        file.write(json.dumps(about) + "\n")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _locked(path: pathlib.Path) -> TextIO:
    while True:
        file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+")  # noqa: SIM115 - the caller closes it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = file.read()
            if error.errno not in _UNSUPPORTED or _alive(holder):
                file.close()
                raise _taken(path, holder) from error
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()  # its holder has just removed it: try again with a new one


def _alive(holder: str) -> bool:
    """Whether the holder still runs, on file systems without locks; a process of another host counts as running."""
    try:
        about = json.loads(holder)
        if about["host"] != socket.gethostname():
            return True
        os.kill(about["pid"], 0)
        return about["pid"] != os.getpid()
    except (ValueError, KeyError, TypeError, ProcessLookupError):
        return False
    except PermissionError:
        return True


def _taken(path: pathlib.Path, holder: str) -> UserError:
    try:
        about = json.loads(holder)
        who = f"process {about['pid']} on {about['host']}, since {about['since']} ({about['command']})"
    except (ValueError, KeyError, TypeError):
        who = "another process"
    return UserError(
        f"{path.parent} is being prepared by {who}: wait for it, or use another --output or --name. "
        f"If that process is gone, remove {path}."
    )
