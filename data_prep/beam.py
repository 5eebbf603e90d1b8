"""The per-item work on Apache Beam: the same tasks, the same spool, so the same bytes as a local run.

Beam is an optional extra (`pip install -r requirements-beam.txt`). The flags of its runner are passed through. A worker
reads the source and writes the spool below `--output`, so both lie where every worker reaches them under the same path:
any local disk for the DirectRunner, a file system that all workers mount for others.
"""

import os
import pathlib
import shlex
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from data_prep import task_runner
from data_prep.corpora.base import Corpus, Item
from media.errors import UserError

INSTALL = "pip install -r requirements-beam.txt (an environment of its own), or leave --runner=beam out"


def _beam() -> Any:
    try:
        import apache_beam
    except ImportError as error:
        raise UserError(f"--runner=beam needs Apache Beam, which cannot be imported ({error}): {INSTALL}.") from error
    return apache_beam


def pipeline_options(text: str) -> Any:
    """Beam's `PipelineOptions` of `--beam_pipeline_options`.

    Args:
      text: as TFDS takes them, `runner=FlinkRunner,flink_master=host:8081`, or as Beam does, `--runner=FlinkRunner
        --flink_master=host:8081`; "" = the DirectRunner.

    Raises:
      UserError: Beam is not installed, or its parser refuses a flag.
    """
    beam = _beam()
    text = text.strip()
    flags = shlex.split(text) if text.startswith("--") else [f"--{part.strip()}" for part in text.split(",") if part]
    if not any(flag.startswith("--runner") for flag in flags):
        flags.append("--runner=DirectRunner")
    try:
        options = beam.options.pipeline_options.PipelineOptions(flags)
        known = options.get_all_options()  # parses every flag
        beam.runners.create_runner(known["runner"])
    except (SystemExit, ValueError) as error:
        raise UserError(f"--beam_pipeline_options={text}: Beam does not accept this: {error}.") from error
    return options


class Task:
    """A picklable function: one task into the spool, complete or not at all even if Beam runs it twice at once."""

    def __init__(self, corpus: Corpus):
        self._corpus = corpus

    def __call__(self, task: tuple[Sequence[Item], str]) -> str:
        """Processes the items into the spool file and returns its path."""
        items, path = task
        attempt = f"{path}.{uuid.uuid4().hex}"
        try:
            task_runner.run_task(self._corpus, items, attempt)
            os.replace(attempt, path)
            os.replace(attempt + ".json", path + ".json")  # last: an index that exists is a task that is done
        finally:
            for left in (attempt, attempt + ".json", attempt + ".json.part"):
                pathlib.Path(left).unlink(missing_ok=True)
        return path


def execute(options: Any) -> task_runner.Execute:
    """The way `data_prep.task_runner.run` executes its tasks on Beam, with these pipeline options."""

    def on_beam(corpus: Corpus, waiting: Sequence[task_runner.Waiting], finished: Callable[..., None]) -> None:
        beam = _beam()
        tasks = [(list(items), os.fspath(path.resolve())) for items, path in waiting]
        try:
            with beam.Pipeline(options=options) as pipeline:
                # Reshuffled, so that a runner does not fuse all tasks into one bundle on one worker.
                _ = pipeline | beam.Create(tasks) | beam.Reshuffle() | beam.Map(Task(corpus))
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"Beam stopped while preparing {corpus.name}: {type(error).__name__}: {_first_line(error)}. What was "
                "finished is kept: put the cause right and run the same command again."
            ) from error
        for items, path in waiting:
            finished(items, path)

    return on_beam


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
