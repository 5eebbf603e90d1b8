"""Runs the per-item work on Apache Beam: the same tasks and the same spool, so the same bytes as a local run.

Beam is an optional extra (`pip install -r requirements-beam.txt`), and its runner's flags are passed through. Workers
read the source and write the spool below `--output`, so every worker must see both under the same path: a local disk
for the DirectRunner, a file system that all workers mount for other runners.
"""

import os
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from data_prep import task_runner
from data_prep.corpora.base import Corpus, Item
from media.errors import UserError

INSTALL = "pip install -r requirements-beam.txt (in a separate environment), or leave out --runner=beam"


def _beam() -> Any:
    try:
        import apache_beam  # an optional extra
    except ImportError as error:
        raise UserError(f"--runner=beam needs Apache Beam, which cannot be imported ({error}): {INSTALL}.") from error
    return apache_beam


def pipeline_options(text: str) -> Any:
    """Parses `--beam_pipeline_options` into Beam's `PipelineOptions`.

    Args:
      text: in TFDS's form, `runner=FlinkRunner,flink_master=host:8081`, or in Beam's, `--runner=FlinkRunner
        --flink_master=host:8081`; "" = the DirectRunner.

    Raises:
      UserError: Beam is not installed, or it rejects a flag.
    """
    beam = _beam()
    text = text.strip()
    flags = shlex.split(text) if text.startswith("--") else [f"--{flag.strip()}" for flag in text.split(",") if flag]
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
    """A picklable function that writes one task into the spool, whole or not at all even if Beam runs it twice."""

    def __init__(self, corpus: Corpus):
        self.corpus = corpus

    def __call__(self, task: tuple[Sequence[Item], str]) -> str:
        """Processes the items into the spool file and returns its path."""
        items, path = task
        task_runner.run_task(self.corpus, items, path)
        return path


def execute(options: Any) -> task_runner.Execute:
    """Returns the function with which `data_prep.task_runner.run` runs its tasks on Beam."""

    def on_beam(corpus: Corpus, waiting: Sequence[task_runner.Waiting], finished: Callable[..., None]) -> None:
        beam = _beam()
        tasks = [(list(items), os.fspath(path.resolve())) for items, path in waiting]
        try:
            with beam.Pipeline(options=options) as pipeline:
                # Without the reshuffle a runner may fuse all tasks into one bundle on one worker.
                _ = pipeline | beam.Create(tasks) | beam.Reshuffle() | beam.Map(Task(corpus))
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"Beam stopped while preparing {corpus.name}: {type(error).__name__}: {_first_line(error)}. Finished "
                "tasks are kept: fix the cause and run the same command again."
            ) from error
        for items, path in waiting:
            finished(items, path)

    return on_beam


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
