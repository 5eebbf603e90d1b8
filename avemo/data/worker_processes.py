"""Batches that other processes decode: in order, and the same whatever the number of processes.

With W processes, process w builds batches k + w, k + w + W, … from the position k at which the iterator starts. The
state is the position alone, so a run may resume with another number of processes, or with none.

A batch travels in anonymous shared memory (`memfd`), which needs no room in /dev/shm, is not copied, and goes when the
last process that maps it goes. A process ends as soon as its socket closes, so it survives its parent in no case.
"""

import contextlib
import mmap
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Sequence
from typing import Any

import cloudpickle
import jax

from media.errors import UserError

_ALIGNMENT = 128  # bytes
_HEADER = 1 << 16  # bytes that a message may have


def count(wanted: str | int) -> int:
    """The number of processes by `data.workers`: a number, or "auto".

    "auto" is none on a CPU, whose cores train, and elsewhere one for each of this host's cores but one.

    Raises:
      UserError: it is neither.
    """
    if wanted == "auto":
        return 0 if jax.default_backend() == "cpu" else max(1, len(os.sched_getaffinity(0)) - 1)
    if not str(wanted).isdecimal():
        raise UserError(f"data.workers is {wanted}: it takes auto, or a number of processes; 0 decodes in threads.")
    return int(wanted)


class WorkerBatches:
    """An endless iterator over `batches[0]`, `batches[1]`, … with a state. `close` it, or let it be collected.

    Args:
      batches: batches by number, each a pure function of it; it can be pickled.
      workers: the number of processes, 1 or more.
      ahead: batches that each process may have ready.
    """

    def __init__(self, batches: Sequence[Any], workers: int, ahead: int):
        if not hasattr(os, "memfd_create"):
            raise UserError("data.workers needs Linux: set --config.data.workers=0 to decode in threads.")
        self._batches, self._count, self._ahead = batches, workers, ahead
        self._position = self._first = 0
        self._workers: list[_Worker] = []
        self._stop = weakref.finalize(self, _close, self._workers)

    def __iter__(self) -> "WorkerBatches":
        return self

    def __next__(self) -> Any:
        if not self._workers:
            self._first = self._position
            pickled = cloudpickle.dumps(self._batches)
            self._workers += [
                _Worker(pickled, range(self._first + number, sys.maxsize, self._count), self._ahead)
                for number in range(self._count)
            ]
        batch = self._workers[(self._position - self._first) % self._count].receive()
        self._position += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """The position: the number of the next batch."""
        return {"next_index": self._position}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on at a position."""
        self.close()
        self._position = int(state["next_index"])

    def close(self) -> None:
        """Ends the processes; the next batch starts others."""
        _close(self._workers)


def _close(workers: list["_Worker"]) -> None:
    for worker in workers:  # all sockets first, so that they end side by side
        worker.hang_up()
    for worker in workers:
        worker.end()
    workers.clear()


class _Worker:
    """A process, seen from its parent."""

    def __init__(self, pickled: bytes, numbers: range, ahead: int):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        job = os.memfd_create("avemo-job")
        try:
            with os.fdopen(os.dup(job), "wb") as file:
                pickle.dump((numbers, ahead), file)
                file.write(pickled)
            paths = [str(pathlib.Path(__file__).resolve().parents[2]), *sys.path]
            environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "avemo.data.worker_process", str(theirs.fileno()), str(job)],
                pass_fds=(theirs.fileno(), job),
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        finally:
            os.close(job)
            theirs.close()

    def receive(self) -> Any:
        """The next batch of this process.

        Raises:
          UserError: of the data, as the process met it; or the process has died.
        """
        try:
            message, descriptors, _, _ = socket.recv_fds(self._socket, _HEADER, 1)
        except ConnectionResetError:
            message = b""
        if not message:
            raise UserError(self._why_it_ended())
        spans = pickle.loads(message)
        if isinstance(spans, Exception):
            raise spans
        with contextlib.suppress(OSError):  # it may have ended since, which its next batch will show
            self._socket.send(b"+")
        return unpack(spans, descriptors[0])

    def _why_it_ended(self) -> str:
        status = self._process.wait(timeout=10)
        how = f"was ended by signal {-status} ({signal.Signals(-status).name})" if status < 0 else f"failed ({status})"
        return (
            f"a process that decodes the input {how}; a lack of memory is the usual reason. The run is saved up to its "
            "last checkpoint: run the same command with a lower --config.data.workers."
        )

    def hang_up(self) -> None:
        self._socket.close()

    def end(self) -> None:
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def pack(batch: Any) -> tuple[bytes, int]:
    """Puts a batch into shared memory; returns what `unpack` needs. The descriptor is the caller's to close."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(batch, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(pickled), *(buffer.raw() for buffer in buffers)]
    spans, end = [], 0
    for part in parts:
        spans.append((end, end + part.nbytes))
        end += part.nbytes + -part.nbytes % _ALIGNMENT
    descriptor = os.memfd_create("avemo-batch")
    os.ftruncate(descriptor, end)
    with mmap.mmap(descriptor, end, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE) as memory:
        for (begin, stop), part in zip(spans, parts, strict=True):
            memory[begin:stop] = part
    return pickle.dumps(spans), descriptor


def unpack(spans: list[tuple[int, int]], descriptor: int) -> Any:
    """The batch that `pack` put there; its arrays lie in the shared memory. Closes the descriptor."""
    try:
        memory = memoryview(mmap.mmap(descriptor, spans[-1][1], flags=mmap.MAP_SHARED | mmap.MAP_POPULATE))
    finally:
        os.close(descriptor)
    pickled, *buffers = (memory[begin:end] for begin, end in spans)
    return pickle.loads(pickled, buffers=buffers)
