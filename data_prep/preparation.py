"""Prepares a corpus: checks the arguments, then builds a data set that appears whole or not at all."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from absl import logging as absl_logging

from data_prep import beam, lock, task_runner
from data_prep.builder import FORMATS, CorpusBuilder, Plan
from data_prep.card.contents import FILENAME
from data_prep.corpora import CORPORA
from data_prep.corpora.base import Corpus, Item
from data_prep.tables import TableError
from media.errors import UserError, unknown
from media.records import SCHEMA_VERSION

RUNNERS = ("local", "beam")


def prepare(
    corpus: str,
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    format: str = "array_record",
    shards: int | None = None,
    workers: int | None = None,
    name: str | None = None,
    max_items: int | None = None,
    quiet: bool = False,
    runner: str = "local",
    beam_pipeline_options: str = "",
    **options: Any,
) -> tuple[pathlib.Path, bool]:
    """Prepares a corpus; a data set that is already complete is left alone.

    Args:
      corpus: a name in `data_prep.corpora.CORPORA`.
      source: the corpus as downloaded.
      output: the data set is written to `output/name/version/`.
      format: "array_record" or "tfrecord".
      shards: files per split; None = one per 256 MB.
      workers: processes; None = one per core. They do not affect the result.
      name: of the data set's folder; None = the corpus's name.
      max_items: at most this many items per split, evenly spread.
      quiet: no progress bar.
      runner: "local" processes or "beam". It does not affect the result.
      beam_pipeline_options: flags for Beam's runner, see `data_prep.beam.pipeline_options`.
      **options: fields of the corpus's `Options`.

    Returns:
      The folder with `features.json`, and whether anything was done.

    Raises:
      UserError: anything that the user can put right. Nothing half-written is left behind.
    """
    _silence_libraries()
    kind = CORPORA[corpus]
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if runner not in RUNNERS:
        raise unknown("runner", runner, RUNNERS)
    if beam_pipeline_options and runner != "beam":
        raise UserError("--beam_pipeline_options needs --runner=beam.")
    _check_positive(shards=shards, workers=workers, max_items=max_items)
    chosen = _corpus_options(kind, options)
    name = name or kind.name
    if not name.replace("_", "").isalnum() or not name.isascii() or not name[0].isalpha():
        raise UserError(f"--name={name}: use letters, digits and underscores only, starting with a letter.")
    beam_options = beam.pipeline_options(beam_pipeline_options) if runner == "beam" else None
    source, output = pathlib.Path(source).expanduser(), pathlib.Path(output).expanduser()
    arguments = {
        "corpus": corpus,
        "source": os.fspath(source.resolve()),
        "format": format,
        "shards": shards,
        "max_items": max_items,
        "schema": SCHEMA_VERSION,
        **{key: value for key, value in dataclasses.asdict(chosen).items() if key not in kind.passing},
    }
    arguments = json.loads(json.dumps(arguments))  # the form in which the card will return them
    target = output / name / SCHEMA_VERSION
    if target.exists():
        _check_same(target, arguments, kind)
        return target, False
    if not source.is_dir():
        raise UserError(f"--source={source} is not a folder.")
    folder = output / name
    instance = kind(source, chosen, folder)
    items = _items(instance, max_items)
    spool = folder / f".spool-{_identity(arguments)}"
    with _occupied(output, folder, spool):
        if target.exists():  # since the first look
            _check_same(target, arguments, kind)
            return target, False
        _remove_leftovers(folder, spool)
        instance.gather(items, quiet)
        plan = Plan(items, spool, arguments, format, shards, workers or os.cpu_count() or 1, quiet)
        CorpusBuilder(instance, name=name, output=output, plan=plan).download_and_prepare(
            download_dir=spool / "downloads",
            file_format=format,
            download_config=tfds.download.DownloadConfig(try_download_gcs=False, beam_options=beam_options),
        )
        shutil.rmtree(spool, ignore_errors=True)
    return target, True


def rehearse(corpus: str, source: str | os.PathLike, options: Mapping[str, Any]) -> tuple[str, bool]:
    """Reads a corpus and writes nothing.

    Args:
      corpus: a name in `data_prep.corpora.CORPORA`, of a corpus with an option `dry_run`.
      source: the corpus as downloaded.
      options: fields of the corpus's `Options`.

    Returns:
      What was found, for the screen, and whether all of it matches.

    Raises:
      UserError: the layout is not as expected.
    """
    kind = CORPORA[corpus]
    chosen = _corpus_options(kind, options)
    source = pathlib.Path(source).expanduser()
    if not source.is_dir():
        raise UserError(f"--source={source} is not a folder.")
    return kind(source, chosen).rehearse()


def _silence_libraries() -> None:
    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("tensorflow_datasets").setLevel(logging.ERROR)
    tfds.disable_progress_bar()


def _check_positive(**flags: int | None) -> None:
    for flag, value in flags.items():
        if value is not None and value < 1:
            raise UserError(f"--{flag} must be at least 1, not {value}.")


def _corpus_options(kind: type[Corpus], options: Mapping[str, Any]) -> Any:
    known = {field.name for field in dataclasses.fields(kind.Options)}
    for option in options:
        if option not in known:
            raise unknown(f"option of {kind.name}", option, known)
    chosen = kind.Options(**options)
    chosen.check()
    return chosen


def _items(corpus: Corpus, max_items: int | None) -> list[Item]:
    try:
        items = select(list(corpus.items()), max_items)
    except TableError as error:
        raise UserError(f"a table of {corpus.source} cannot be read: {error}.") from error
    check_items(corpus, items)
    return items


def _identity(arguments: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(arguments).encode()).hexdigest()[:16]


def _remove_leftovers(folder: pathlib.Path, spool: pathlib.Path) -> None:
    """Removes what killed runs left in the data set's folder, except the spool that this run reuses."""
    for left in (*folder.glob("incomplete.*"), *folder.glob(".spool-*")):
        if left != spool:
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _occupied(output: pathlib.Path, folder: pathlib.Path, spool: pathlib.Path) -> Iterator[None]:
    """Locks the data set's folder. If the block fails, only finished work is left, and no folder if there is none.

    Raises:
      UserError: another process prepares this data set, the disk is full, or the output cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock.held(folder):
            try:
                yield
            except BaseException:
                task_runner.keep_finished(spool)
                raise
    except BaseException as error:
        kept = spool.exists()
        with contextlib.suppress(OSError):  # only empty folders can be removed
            folder.rmdir()
            output.rmdir()
        if isinstance(error, OSError):
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                hint = f"; finished work is kept in {spool}" if kept else ""
                raise UserError(f"the disk of {output} is full: free some space and run again{hint}.") from error
            if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EPERM):
                raise UserError(f"--output={output} cannot be written: {error.strerror}.") from error
        raise


def _check_same(target: pathlib.Path, arguments: Mapping[str, Any], kind: type[Corpus]) -> None:
    """Raises a `UserError` if the data set in `target` was prepared with other arguments.

    An option that is younger than the data set had its default.
    """
    try:
        before = json.loads((target / FILENAME).read_text())["arguments"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{target} exists but is not a data set of this program: remove it or use another --output."
        ) from error
    before = {**dataclasses.asdict(kind.Options()), **before}
    before = {key: value for key, value in before.items() if key not in kind.passing}
    changed = [
        f"{key} was {before.get(key)!r}, now {arguments.get(key)!r}"
        for key in sorted({*before, *arguments})
        if before.get(key) != arguments.get(key)
    ]
    if changed:
        raise UserError(
            f"{target} was prepared with other arguments: {'; '.join(changed)}. Use another --output or --name, "
            "or remove the folder."
        )


def select(items: list[Item], max_items: int | None) -> list[Item]:
    """Returns at most `max_items` items per split, evenly spread so that no class or speaker is favoured."""
    if max_items is None:
        return items
    out = []
    for split in dict.fromkeys(item.split for item in items):
        candidates = [item for item in items if item.split == split]
        count = min(max_items, len(candidates))
        out += [candidates[i * len(candidates) // count] for i in range(count)]
    return out


def check_items(corpus: Corpus, items: Sequence[Item]) -> None:
    """Raises a `UserError` if there are no items, a key is used twice, or a subject is in two splits."""
    if not items:
        raise corpus.wrong_layout("no item was found")
    keys: set[str] = set()
    home: dict[str, str] = {}
    for item in items:
        if item.key in keys:
            raise UserError(f"{corpus.name}: two items are called {item.key!r}; names must differ.")
        keys.add(item.key)
        if item.subject and home.setdefault(item.subject, item.split) != item.split:
            raise UserError(
                f"{corpus.name}: subject {item.subject!r} is in both {home[item.subject]!r} and {item.split!r}: "
                "a score on people seen in training says nothing. Change the split."
            )
