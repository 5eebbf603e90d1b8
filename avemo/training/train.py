"""Trains one stage to its end, resuming where an earlier call stopped."""

import contextlib
import logging
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from avemo import tasks
from avemo.runs import compilation_cache, run_folder
from avemo.training import loop, optimizer
from avemo.training.preemption import catch_sigterm
from avemo.training.single import SingleRun
from media.errors import UserError
from media.files import STORAGE_ERRORS, is_full

logger = logging.getLogger(__name__)


def train_and_evaluate(
    config: ConfigDict,
    workdir: str | pathlib.Path | epath.Path,
    progress: bool | None = None,
    stop: Callable[[int], bool] | None = None,
) -> dict[str, Any]:
    """Runs one stage to its end, resuming where an earlier call stopped.

    Args:
      config: the experiment.
      workdir: run folder, local or gs://.
      progress: whether to draw a progress bar; by default if stderr is a terminal.
      stop: `(step)` -> whether to save and leave before this step; by default when SIGTERM arrives.

    Returns:
      The run's result, as written to `result.json`.

    Raises:
      UserError: bad config, data or folder; a loss that is not finite (the step is named, the last checkpoint kept).
      Preempted: SIGTERM arrived and the state was saved.
    """
    if config.eval_every % config.log_every:
        raise UserError(
            f"eval_every ({config.eval_every}) must be a multiple of log_every ({config.log_every}): a resumed run "
            "starts there, and would average other steps into its next line."
        )
    optimizer.check(config)
    config = run_folder.decide(config, workdir)
    workdir = run_folder.prepare_workdir(config, workdir)
    compilation_cache.keep()
    done = run_folder.finished(workdir, config)
    if done is not None:
        logger.info("%s is complete (step %d): nothing to do.", workdir, done["step"])
        return done
    with run_folder.lock(workdir), contextlib.nullcontext(stop) if stop else catch_sigterm() as stop:
        stage = tasks.make(config)
        data = tasks.open_data(stage)
        with _disk_errors(workdir):
            program = SingleRun(stage, data, workdir)
        with contextlib.closing(program), _disk_errors(workdir, program.state_bytes()):
            began = time.time()
            shown = sys.stderr.isatty() if progress is None else progress
            options = {"total": config.steps, "initial": program.start, "unit": "step", "mininterval": 0.5}
            with tqdm(desc=stage.name, disable=not shown, **options) as bar:
                loop.run(program, stop, bar)
            return program.finish(time.time() - began)


@contextlib.contextmanager
def _disk_errors(workdir: epath.Path, checkpoint: int = 0) -> Iterator[None]:
    """Reports in one line that the run's folder cannot be written, whichever file it was.

    Orbax reports a full disk as a ValueError. A ValueError counts as such if the disk has no room for a `checkpoint` of
    this many bytes.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        full = error.errno in STORAGE_ERRORS if isinstance(error, OSError) else False
        full = full or is_full(workdir, checkpoint)
        if not full and isinstance(error, ValueError):
            raise
        reason = getattr(error, "strerror", None) or (
            "No space left on device" if full else " ".join(str(error).split())
        )
        remedy = "free some space" if full else "check the folder and its disk"
        raise UserError(
            f"writing to {workdir} failed ({reason}): {remedy} and run the same command again; the last checkpoint is "
            "kept."
        ) from error
