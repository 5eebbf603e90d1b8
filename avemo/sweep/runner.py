"""Trains the unfinished cells of a sweep, then writes the tables from all that are finished.

Every cell has a folder with its own `result.json`. Shards on several machines therefore never write to the same file,
and merging them means reading the folders. A finished cell is never trained again. A failed one leaves `error.json` and
is tried again by the next call.
"""

import concurrent.futures
import json
import logging
import os
import shlex
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from avemo.runs import compilation_cache, run_folder
from avemo.sweep import plan, summary, tables
from avemo.training import seeds_together, train
from media.errors import UserError
from media.files import read_json, write_atomically, write_errors

logger = logging.getLogger(__name__)


def run(spec: str, workdir: str, overrides: Sequence[str] = (), shard: str | None = None) -> dict[str, Any]:
    """Runs a sweep, or one shard of it, and writes the tables.

    Args:
      spec: the sweep's config, `path.py[:variant]`.
      workdir: folder of the cells and tables, local or shared by all shards.
      overrides: `--config.NAME=value`, where NAME is `seeds`, `title` or a field of every cell.
      shard: "i/n", 1 ≤ i ≤ n: every n-th setting, from the i-th.

    Returns:
      Counts of cells and the paths written.

    Raises:
      UserError: the sweep is malformed, the workdir belongs to another one, or every setting failed.
    """
    sweep = plan.load(spec, overrides)
    groups = [seeds for candidates in plan.cells(sweep) for seeds in candidates]
    mine = _shard(groups, shard)
    folder = _prepare(sweep, spec, epath.Path(workdir))
    compilation_cache.keep()
    with write_errors(folder):
        _train_all(mine, folder)
        results = summary.results(sweep, folder)
        written = tables.write(sweep, results, folder, shlex.join((spec, *overrides)))
    failed = [r for r in results if r.error and not r.seeds]
    if len(failed) == len(results):
        raise UserError(f"every setting of {spec} failed; {failed[0].name}: {failed[0].error}")
    return {
        "settings": len(results),
        "finished": sum(r.seeds for r in results),
        "failed": {r.name: r.error for r in results if r.error},
        "pending": [r.name for r in results if not r.seeds and not r.error],
        "written": [str(p) for p in written],
    }


def _shard(groups: list[list[plan.Cell]], shard: str | None) -> list[list[plan.Cell]]:
    if shard is None:
        return groups
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UserError(f"--shard={shard} is not i/n with 1 ≤ i ≤ n, such as --shard=2/4.")
    return groups[int(index) - 1 :: int(count)]


def _prepare(sweep: plan.Sweep, spec: str, folder: epath.Path) -> epath.Path:
    """Creates the workdir, or checks that it belongs to this sweep, to which settings and seeds may be added."""
    shared = json.loads(json.dumps({"experiment": sweep.experiment, "common": dict(sweep.common)}, default=str))
    path = folder / "sweep.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            before = read_json(path)
            if {k: before.get(k) for k in shared} != shared:
                raise UserError(
                    f"{folder} holds a sweep of {before.get('experiment')} with {before.get('common')}: "
                    "choose another --workdir or undo the change."
                )
        write_atomically(path, json.dumps({**shared, "config": spec, "title": sweep.title}, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to --workdir={folder}: {error.strerror or error}") from error
    return folder


def _train_all(groups: Sequence[Sequence[plan.Cell]], folder: epath.Path) -> None:
    """Trains the groups, each the seeds of one setting; several at a time on a single CPU device."""
    # One setting is a chain of small operations that cannot fill the cores; several settings can, and they compile in
    # parallel. On several devices they run one by one, because the collectives of two programs would deadlock.
    alone = jax.default_backend() == "cpu" and jax.device_count() == 1
    jobs = max(1, min(os.cpu_count() or 1, 8)) if alone else 1
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    try:
        waiting = {pool.submit(_train_seeds, cells, folder): cells[0] for cells in groups}
        for number, done in enumerate(concurrent.futures.as_completed(waiting), 1):
            cell = waiting[done]
            name = " · ".join(filter(None, (cell.setting, cell.candidate)))
            logger.info("[%d/%d] %s: %s", number, len(groups), name, done.result())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C, cells in training are left as they are


def _train_seeds(cells: Sequence[plan.Cell], folder: epath.Path) -> str:
    """Trains the unfinished seeds of one setting and returns one line about the outcome. Never raises an error."""
    todo: list[plan.Cell] = []
    try:
        todo = [cell for cell in cells if run_folder.finished(folder / cell.folder, cell.config()) is None]
        if not todo:
            return "already finished"
        configs = [cell.config() for cell in todo]
        if configs[0].task == "audiovisual":
            with write_errors(folder):
                failed = seeds_together.train_seeds(configs, [folder / cell.folder for cell in todo])
        else:
            failed = [_alone(config, folder / cell.folder) for config, cell in zip(configs, todo, strict=True)]
        reasons = dict(zip(todo, failed, strict=True))
    except run_folder.InUse as error:
        return str(error)
    except Exception as error:  # whatever it is, the other settings continue and the tables name it
        if not isinstance(error, UserError):
            logger.warning("%s failed", cells[0].folder, exc_info=True)
        reasons = dict.fromkeys(todo or cells, _reason(error))
    for cell, reason in reasons.items():
        _note_error(folder / cell.folder, reason)
    broken = [reason for reason in reasons.values() if reason]
    return f"{len(broken)} of {len(cells)} seeds failed: {broken[0]}" if broken else f"{len(reasons)} seeds trained"


def _alone(config: Any, workdir: epath.Path) -> str | None:
    """Trains one cell by itself: only fusion runs can train their seeds together."""
    try:
        train.train_and_evaluate(config, workdir, progress=False)
    except run_folder.InUse:
        raise
    except UserError as error:
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _note_error(workdir: epath.Path, reason: str | None) -> None:
    path = workdir / "error.json"
    if reason is None:
        path.unlink(missing_ok=True)
        return
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({"error": reason}) + "\n")
