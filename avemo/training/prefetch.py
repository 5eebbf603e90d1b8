"""Batches drawn ahead of the step that uses them."""

from collections.abc import Callable
from typing import Any


class Prefetch:
    """Draws one batch ahead and puts it on the devices, while remembering the position before it.

    Args:
      batches: an iterator with `get_state`.
      put: puts a batch on the devices.
    """

    def __init__(self, batches: Any, put: Callable[[Any], Any]):
        self._batches, self._put = batches, put
        self._ready: tuple[Any, Any] | None = None  # the position before the batch that was drawn, and the batch

    def _draw(self) -> tuple[Any, Any]:
        before = self._batches.get_state()
        return before, self._put(next(self._batches))

    def state(self) -> Any:
        """The iterator state from which the next batch is drawn again."""
        return self._ready[0] if self._ready else self._batches.get_state()

    def next(self) -> Any:
        """The next batch, on the devices; the one after it is on its way."""
        _, batch = self._ready or self._draw()
        self._ready = self._draw()
        return batch
