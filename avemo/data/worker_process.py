"""What a process of `worker_processes` runs: `python -m avemo.data.worker_process SOCKET JOB` (file descriptors)."""

import os
import pickle
import signal
import socket
import sys
import threading
import traceback

import cv2

from avemo.data.worker_processes import pack
from media.errors import UserError


def main(connection: int, job: int) -> None:
    """Sends the batches of a job one after another, until the socket closes."""
    for number in (signal.SIGINT, signal.SIGTERM):  # may be sent to the whole group: the parent decides
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    to_parent = socket.socket(fileno=connection)
    with os.fdopen(job, "rb") as file:
        file.seek(0)
        numbers, ahead = pickle.load(file)
        room = threading.Semaphore(ahead)
        threading.Thread(target=_listen, args=(to_parent, room), daemon=True).start()
        try:
            batches = pickle.load(file)
            for number in numbers:
                room.acquire()
                header, descriptor = pack(batches[number])
                socket.send_fds(to_parent, [header], [descriptor])
                os.close(descriptor)
        except BrokenPipeError:
            pass
        except Exception as error:
            to_parent.send(pickle.dumps(_portable(error)))


def _listen(to_parent: socket.socket, room: threading.Semaphore) -> None:
    """Makes room for a batch whenever the parent has taken one; ends the process once the parent has gone."""
    while True:
        try:
            taken = to_parent.recv(1)
        except ConnectionResetError:
            taken = b""
        if not taken:
            os._exit(0)
        room.release()


def _portable(error: Exception) -> Exception:
    """An error that the parent can raise: any that is not the user's as text, with where it happened."""
    if isinstance(error, UserError):
        return UserError(str(error))
    return RuntimeError("a process that decodes the input failed:\n" + traceback.format_exc()[-20_000:])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
