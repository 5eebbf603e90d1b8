"""Runs the per-item work over processes into a spool that survives being killed.

A task is a run of items. Its records go to one spool file, its index beside it last: an index that exists is a task
that is done, so a run that was killed goes on where it was, and the shards, built from the spool in order of the tasks,
do not depend on who did what when.
"""

import collections
import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import signal
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cv2
import tqdm

from data_prep.card.counts import Statistics
from data_prep.corpora.base import Corpus, Item
from media import tfrecord
from media.errors import BadItem, Dropped, UserError
from media.records import Serializer, check_clip

# One failure may happen to anybody; more than one item in twenty means that something is wrong with the source.
MAX_FAILED_SHARE = 0.05

Waiting = tuple[Sequence[Item], pathlib.Path]  # a task that is still to be done: its items and its spool file
# How tasks are executed: (corpus, tasks waiting, what to call with each that is finished).
Execute = Callable[[Corpus, Sequence[Waiting], Callable[[Sequence[Item], pathlib.Path], None]], None]

_serializers: dict[str, Serializer] = {}


def _serializer(corpus: Corpus) -> Serializer:
    key = json.dumps(corpus.features().to_json_content(), default=str)
    if key not in _serializers:
        _serializers[key] = Serializer(corpus.features())
    return _serializers[key]


def run_task(corpus: Corpus, items: Sequence[Item], path: str) -> None:
    """Processes items into the spool file `path`, and its index `path` + ".json" last."""
    serializer = _serializer(corpus)
    records: list[list[Any]] = []
    skipped, dropped = [], collections.Counter()
    stats = Statistics(corpus.kind)
    done = 0
    with open(path, "wb") as file:
        for item in items:
            begin, kept = file.tell(), len(records)
            try:
                counted = []
                for number, record in enumerate(corpus.process(item)):
                    if corpus.kind == "clips":
                        check_clip(record)
                    counted.append(stats.measure(record))
                    offset, length = tfrecord.append(file, serializer.encode(record))
                    records.append([item.split, f"{item.key}#{number}", offset, length])
                done += 1
                for measured in counted:
                    stats.count(item.split, measured)
                continue
            except Dropped as reason:
                dropped[str(reason)] += 1
            except (UserError, KeyboardInterrupt):
                raise
            except OSError as error:
                if error.errno is not None and not isinstance(error, FileNotFoundError | PermissionError):
                    raise  # a full disk is no fault of the item
                skipped.append({"item": item.key, "split": item.split, "reason": str(error)})
            except BadItem as error:
                skipped.append({"item": item.key, "split": item.split, "reason": str(error)})
            except Exception as error:  # whatever a broken file may provoke must not end the run
                reason = f"{type(error).__name__}: {error}"
                skipped.append({"item": item.key, "split": item.split, "reason": reason})
            # An item is stored whole or not at all.
            file.seek(begin)
            file.truncate()
            del records[kept:]
    index = {"records": records, "done": done, "skipped": skipped, "dropped": dropped, "stats": stats.to_json()}
    temporary = pathlib.Path(path + ".json.part")
    temporary.write_text(json.dumps(index))
    os.replace(temporary, path + ".json")


def _start_worker() -> None:
    cv2.setNumThreads(1)  # the processes are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer: tasks that run are finished


def run(
    corpus: Corpus,
    items: Sequence[Item],
    spool: pathlib.Path,
    workers: int,
    quiet: bool = False,
    execute: Execute | None = None,
) -> list[dict]:
    """Processes all items; returns the tasks' indices in order, each with its spool file's `path`.

    Args:
      corpus: says what is done with an item.
      items: all of them, in order.
      spool: folder of the tasks' files; those that are there are not made again.
      workers: processes.
      quiet: no progress bar.
      execute: another way than local processes, such as `data_prep.beam.execute`.

    Raises:
      UserError: more than 5 % of the items (and more than one) failed, or a worker died.
    """
    spool.mkdir(parents=True, exist_ok=True)
    tasks = [items[i : i + corpus.chunk] for i in range(0, len(items), corpus.chunk)]
    paths = [spool / f"{number:06d}.records" for number in range(len(tasks))]
    waiting = [(task, path) for task, path in zip(tasks, paths, strict=True) if not _index(path).exists()]
    allowed = max(1, int(MAX_FAILED_SHARE * len(items)))
    failures: list[dict] = []
    with tqdm.tqdm(total=len(items), unit="item", desc=corpus.name, disable=quiet, mininterval=0.5) as bar:

        def finished(task: Sequence[Item], path: pathlib.Path) -> None:
            failures.extend(json.loads(_index(path).read_text())["skipped"])
            bar.update(len(task))
            if len(failures) > allowed:
                example = failures[0]
                raise UserError(
                    f"{len(failures)} of {len(items)} items of {corpus.name} failed, more than {MAX_FAILED_SHARE:.0%}; "
                    f"the first: {example['item']}: {example['reason']}. Put the source right and run again."
                )

        for task, path in zip(tasks, paths, strict=True):
            if _index(path).exists():
                finished(task, path)
        if execute is not None:
            if waiting:
                execute(corpus, waiting, finished)
        elif workers <= 1 or len(waiting) <= 1:
            for task, path in waiting:
                run_task(corpus, task, str(path))
                finished(task, path)
        else:
            _run_parallel(corpus, waiting, min(workers, len(waiting)), finished)
    return [{**json.loads(_index(path).read_text()), "path": path} for path in paths]


def _index(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + ".json")


def _run_parallel(corpus: Corpus, waiting: Sequence[Waiting], workers: int, finished: Any) -> None:
    # A fork server: a fresh process that has imported this package once, so no thread of the caller is ever forked.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["data_prep.forkserver_preload"])
    with concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker) as pool:
        futures = {pool.submit(run_task, corpus, task, str(path)): (task, path) for task, path in waiting}
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                finished(*futures[future])
        except BrokenProcessPool as error:
            raise UserError(
                f"a worker process died while preparing {corpus.name} (out of memory, or killed): run again with fewer "
                "--workers; with --workers=1 the item at fault is the one that the progress bar stops at."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
