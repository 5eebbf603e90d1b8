"""Iterators that run ahead in a thread, and items grouped into batches."""

import contextlib
import itertools
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` items; the last one may be shorter."""
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


class Prefetch(Generic[T]):
    """Runs an iterator in its own thread, at most `size` items ahead; its exceptions are raised in the consumer.

    Usage: `with Prefetch(items, 2) as items: for item in items: ...`. Leaving the block ends the thread.
    """

    def __init__(self, items: Iterable[T], size: int):
        self._queue: queue.Queue[tuple[bool, Any]] = queue.Queue(size)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), daemon=True)
        self._thread.start()

    def _run(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._put((True, item)):
                    return
            self._put((False, None))
        except BaseException as error:  # raised again by `__next__`
            self._put((False, error))
        finally:
            if hasattr(items, "close"):
                items.close()

    def _put(self, entry: tuple[bool, Any]) -> bool:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(entry, timeout=0.1)
                return True
        return False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        more, item = self._queue.get()
        if more:
            return item
        self._queue.put((False, None))
        if item is not None:
            raise item
        raise StopIteration

    def __enter__(self) -> "Prefetch[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
