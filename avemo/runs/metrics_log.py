"""Metrics of a run: one JSON object per line in `metrics.jsonl`, with TensorBoard events beside it."""

import json
import logging
import math
import socket
import time
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from media.files import write_atomically

logger = logging.getLogger(__name__)


def read(path: str | epath.Path) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl`; a torn line (a killed run or a full disk) is reported and left out."""
    path = epath.Path(path)
    if not path.exists():
        return []
    out = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            values = json.loads(line)
        except ValueError:  # bad JSON, or bytes that are not text
            values = None
        if isinstance(values, dict):
            out.append(values)
        else:
            logger.warning("%s: line %d is damaged and is left out.", path, number)
    return out


class MetricsWriter:
    """Appends lines `{"step", "split", "wall_time", **values}`; only the first process writes.

    Opening it on a resumed run drops the lines after the restored step, so that no line is lost or written twice.
    """

    def __init__(self, workdir: str | epath.Path, resume_step: int = 0):
        from tensorboardX import SummaryWriter

        self._path = epath.Path(workdir) / "metrics.jsonl"
        self._board = None
        if jax.process_index() != 0:
            return
        kept = [line for line in read(self._path) if line.get("step", 0) <= resume_step]
        # Atomically: a run that is killed here must not lose the lines before its checkpoint.
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        # tensorboardX writes local folders; a gs:// run keeps metrics.jsonl.
        if "://" not in str(workdir):
            self._board = SummaryWriter(str(workdir), purge_step=resume_step + 1)
            # TensorBoard names its files after the host, and after the second, in which a run may be opened twice.
            host = socket.gethostname()
            for path in epath.Path(workdir).glob(f"events.out.tfevents.*.{host}"):
                path.rename(path.with_name(f"{path.name.removesuffix(host)}{time.time_ns()}"))

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Logs scalar values of one split at one step; NaN and infinity become null, because JSON has neither."""
        if jax.process_index() != 0:
            return
        clean = {k: (float(v) if math.isfinite(float(v)) else None) for k, v in values.items()}
        line = {"step": int(step), "split": split, "wall_time": round(time.time(), 3), **clean}
        if "://" in str(self._path):
            self._path.write_text(self._path.read_text() + json.dumps(line) + "\n")
        else:
            with open(self._path, "a") as file:
                file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in clean.items():
                if value is not None:
                    self._board.add_scalar(f"{split}/{name}", value, int(step))

    def close(self) -> None:
        """Flushes and closes the TensorBoard file."""
        if self._board is not None:
            self._board.close()
