"""Runs the per-item work in processes, into a spool folder that survives being killed.

A task is a run of consecutive items. Its records go to one spool file, which is named after the items and the state of
their files; its index is written beside it last. So a task with an index is done, and a preparation that was stopped
continues where it was, except for tasks whose input changed and for those in which an item failed. The shards are built
from the spool in the order of the tasks and do not depend on which process finished when.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import multiprocessing
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, BinaryIO

import cv2
import tqdm

from data_prep.card.counts import SplitCounts
from data_prep.corpora.base import Corpus, Item
from media import tfrecord
from media.errors import BadItem, Dropped, UserError
from media.files import LFS_REMEDY, points_to_lfs, write_atomically
from media.records import Serializer, check_clip
from media.termination import end_with_parent

# A single failure is tolerated; more than one item in twenty means that something is wrong with the source.
MAX_FAILED_SHARE = 0.05
_OPEN_FILES = 64

Waiting = tuple[Sequence[Item], pathlib.Path]  # a task still to do: its items and its spool file
Finished = Callable[[Sequence[Item], pathlib.Path], None]  # called with each task once it is done
Execute = Callable[[Corpus, Sequence[Waiting], Finished], None]  # a way to run tasks, such as `data_prep.beam.execute`

_serializers: dict[str, Serializer] = {}


def _serializer(corpus: Corpus) -> Serializer:
    """Builds one serializer per schema and process."""
    key = json.dumps(corpus.features().to_json_content(), default=str)
    if key not in _serializers:
        _serializers[key] = Serializer(corpus.features())
    return _serializers[key]


def run_task(corpus: Corpus, items: Sequence[Item], path: str) -> None:
    """Processes items into the spool file `path` and its index `path` + ".json", which appear when they are whole.

    A second process at the same task, or a killed one, does no harm: each writes under a name of its own.
    """
    attempt = f"{path}.{uuid.uuid4().hex}"
    try:
        index = _process(corpus, items, attempt)
        os.replace(attempt, path)
        write_atomically(path + ".json", json.dumps(index))  # last: a task with an index is done
    finally:
        pathlib.Path(attempt).unlink(missing_ok=True)


def _process(corpus: Corpus, items: Sequence[Item], path: str) -> dict[str, Any]:
    """Writes the items' records to a file and returns its index."""
    serializer = _serializer(corpus)
    records: list[list[Any]] = []
    skipped: list[dict[str, str]] = []
    dropped: collections.Counter[str] = collections.Counter()
    counts = SplitCounts(corpus.kind)
    done = 0
    with open(path, "wb") as file:
        for item in items:
            try:
                records += _append_item(file, corpus, item, serializer, counts)
                done += 1
            except Dropped as drop:
                dropped[drop.reason] += 1
            except UserError:
                raise
            except Exception as error:  # no broken file may end the run, whatever it raises
                if _machine_is_at_fault(error):
                    raise
                known = isinstance(error, BadItem | OSError)
                reason = _pointer(corpus, item) or (str(error) if known else f"{type(error).__name__}: {error}")
                skipped.append({"item": item.key, "split": item.split, "reason": reason})
        size = file.tell()
    return {
        "records": records,
        "done": done,
        "skipped": skipped,
        "dropped": dropped,
        "stats": counts.to_json(),
        "size": size,
    }


def _append_item(
    file: BinaryIO, corpus: Corpus, item: Item, serializer: Serializer, counts: SplitCounts
) -> list[list[Any]]:
    """Stores all records of an item, or none if one of them fails; returns their entries of the index."""
    begin = file.tell()
    entries, measured = [], []
    try:
        for number, record in enumerate(corpus.process(item)):
            if corpus.kind == "clips":
                check_clip(record)
            measured.append(counts.measure(record))
            offset, length = tfrecord.append(file, serializer.encode(record))
            entries.append([item.split, f"{item.key}#{number}", offset, length])
    except BaseException:
        file.seek(begin)
        file.truncate()
        raise
    for one in measured:
        counts.count(item.split, one)
    return entries


def _pointer(corpus: Corpus, item: Item) -> str:
    """Says that a file of an item that failed is a pointer of Git LFS; "" if none is."""
    pointer = next((path for path in corpus.sources(item) if points_to_lfs(path)), None)
    return f"{os.path.basename(pointer)}: {LFS_REMEDY}" if pointer else ""


def _machine_is_at_fault(error: Exception) -> bool:
    """Whether the machine failed, as with a full disk, and not the item."""
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError | PermissionError):
        return False
    return error.errno is not None


def _start_worker() -> None:
    cv2.setNumThreads(1)  # the processes already use every core
    end_with_parent()


def run(
    corpus: Corpus,
    items: Sequence[Item],
    spool: pathlib.Path,
    workers: int,
    quiet: bool = False,
    execute: Execute | None = None,
) -> list[dict[str, Any]]:
    """Processes all items; returns the tasks' indices in order, each with the `path` of its spool file.

    Args:
      corpus: says how an item becomes records.
      items: all of them, in order.
      spool: folder of the tasks' files; tasks that are already there are not repeated.
      workers: number of processes.
      quiet: no progress bar.
      execute: runs the tasks in another way than in local processes.

    Raises:
      UserError: more than 5 % of the items (and more than one) failed, or a worker process died.
    """
    spool.mkdir(parents=True, exist_ok=True)
    tasks = [items[i : i + corpus.chunk] for i in range(0, len(items), corpus.chunk)]
    paths = [spool / f"{_identity(corpus, task)}.records" for task in tasks]
    kept = _clean(spool) & set(paths)
    for path in set(spool.glob("*.records")) - kept:
        _forget(path)
    waiting = [(task, path) for task, path in zip(tasks, paths, strict=True) if path not in kept]
    allowed = max(1, int(MAX_FAILED_SHARE * len(items)))
    failures: list[dict[str, str]] = []
    with tqdm.tqdm(total=len(items), unit="item", desc=corpus.name, disable=quiet, mininterval=0.5) as bar:

        def finished(task: Sequence[Item], path: pathlib.Path) -> None:
            failures.extend(json.loads(_index(path).read_text())["skipped"])
            bar.update(len(task))
            if len(failures) > allowed:
                example = failures[0]
                raise UserError(
                    f"{len(failures)} of {len(items)} items of {corpus.name} failed, more than {MAX_FAILED_SHARE:.0%}; "
                    f"the first: {example['item']}: {example['reason']}. Repair the source and run again."
                )

        for task, path in zip(tasks, paths, strict=True):
            if path in kept:
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


def _identity(corpus: Corpus, items: Sequence[Item]) -> str:
    """Names a task after its items, with the size and modification time of the files that they depend on."""
    described = []
    for item in items:
        stamps = []
        for path in corpus.sources(item):
            with contextlib.suppress(OSError):
                status = os.stat(path)
                stamps.append([path, status.st_size, status.st_mtime_ns])
        described.append([item.key, item.split, item.subject, dict(item.payload), stamps])
    return hashlib.sha256(json.dumps(described, default=str).encode()).hexdigest()[:32]


def _clean(spool: pathlib.Path) -> set[pathlib.Path]:
    """Removes what is not the result of a finished task without failures; returns the files of those that are."""
    kept = {path for path in spool.glob("*.records") if _is_done(path)}
    names = {path.name for one in kept for path in (one, _index(one))}
    for path in spool.iterdir():
        if path.is_file() and path.name not in names:
            path.unlink()
    return kept


def _is_done(path: pathlib.Path) -> bool:
    try:
        index = json.loads(_index(path).read_text())
        return not index["skipped"] and index["size"] == path.stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _forget(path: pathlib.Path) -> None:
    _index(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def keep_finished(spool: pathlib.Path) -> None:
    """Leaves only finished tasks without failures in the spool, and no spool if there are none."""
    if spool.is_dir() and not _clean(spool):
        shutil.rmtree(spool, ignore_errors=True)


def records(entries: Sequence[tuple[str, pathlib.Path, int, int]]) -> Iterator[tuple[str, bytes]]:
    """Reads records from the spool.

    Args:
      entries: (key, spool file, offset, length) of each.

    Yields:
      (key, data).

    Raises:
      UserError: a record is damaged. Its task is forgotten, so the next run does it again.
    """
    files: dict[pathlib.Path, BinaryIO] = {}
    try:
        for key, path, offset, length in entries:
            if path not in files:
                if len(files) >= _OPEN_FILES:  # shuffled records come from all spool files
                    files.pop(next(iter(files))).close()
                files[path] = open(path, "rb")  # noqa: SIM115 - closed below
            files[path].seek(offset)
            data, checksum = files[path].read(length), files[path].read(4)
            if len(data) < length or tfrecord.masked_crc(data) != checksum:
                _forget(path)
                raise UserError(
                    f"{path}, the finished work on {key}, is damaged and was removed: run the same command again."
                )
            yield key, data
    finally:
        for file in files.values():
            file.close()


def _run_parallel(corpus: Corpus, waiting: Sequence[Waiting], workers: int, finished: Finished) -> None:
    # A fork server is a fresh process that imports this package once, so no thread of the caller is ever forked.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["data_prep.forkserver_preload"])
    others = set(multiprocessing.active_children())
    with concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker) as pool:
        futures = {pool.submit(run_task, corpus, task, str(path)): (task, path) for task, path in waiting}
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                finished(*futures[future])
        except BrokenProcessPool as error:
            raise UserError(
                f"a worker process died while preparing {corpus.name} (out of memory, or killed): run again with fewer "
                "--workers. With --workers=1 the progress bar stops at the item at fault."
            ) from error
        except BaseException:
            # Whatever ended the run, nobody waits for the tasks in progress: they can take as long as a recording.
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
