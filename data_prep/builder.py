"""From a corpus to a finished TFDS data set: one builder for all corpora, published whole or not at all."""

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
from tensorflow_datasets.core import dataset_builder, file_adapters, naming, splits

from data_prep import beam, task_runner
from data_prep.card import contents
from data_prep.card.counts import Statistics
from data_prep.corpora import CORPORA
from data_prep.corpora.base import Corpus, Item
from media import tfrecord
from media.errors import UserError, unknown
from media.records import SCHEMA_VERSION

FORMATS = {
    "array_record": file_adapters.ArrayRecordFileAdapter.write_examples,
    "tfrecord": tfrecord.write,  # TFDS's own writer needs TensorFlow
}
SHARD_BYTES = 256 << 20
RUNNERS = ("local", "beam")


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing of ours is in TFDS's bucket; looking there would leave an empty temporary folder behind."""


class CorpusBuilder(dataset_builder.FileReaderBuilder, skip_registration=True):
    """The TFDS builder of any `Corpus`.

    It differs from a `GeneratorBasedBuilder` in where the records wait until the shards are written: in the spool of
    `data_prep.task_runner` (several processes, resumable, memory flat) and not in TFDS's shuffler, which keeps up to
    1 GB in memory and needs TensorFlow beyond.
    """

    VERSION = tfds.core.Version(SCHEMA_VERSION)

    def __init__(self, corpus: Corpus, *, name: str, output: pathlib.Path, **plan: Any):
        self.corpus, self._plan = corpus, plan
        self.name = name
        self.MANUAL_DOWNLOAD_INSTRUCTIONS = corpus.instructions()
        super().__init__(data_dir=os.fspath(output))

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            description=f"{self.corpus.title}\n\n{self.corpus.instructions()}",
            features=self.corpus.features(),
            homepage=self.corpus.homepage or None,
            citation=self.corpus.citation or None,
            license=self.corpus.licence or None,
            disable_shuffling=not self.corpus.shuffle,
        )

    def _log_download_bytes(self) -> None:
        """Nothing is downloaded: nothing to announce."""

    def _log_download_done(self) -> None:
        """The command line says what was made."""

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        del dl_manager
        plan, options = self._plan, getattr(download_config, "beam_options", None)
        execute = None if options is None else beam.execute(options)
        indices = task_runner.run(self.corpus, plan["items"], plan["spool"], plan["workers"], plan["quiet"], execute)
        stats = Statistics(self.corpus.kind)
        for index in indices:
            stats.merge(Statistics.from_json(self.corpus.kind, index["stats"]))
        self.corpus.review({name: split["labels"] for name, split in stats.splits.items()})
        infos = [self._write_split(name, indices) for name in ("train", "dev", "test")]
        infos = [info for info in infos if info is not None]
        if not infos:
            raise UserError(f"{self.corpus.source} gave not one record: {contents.reasons(indices)}.")
        self.info.set_splits(splits.SplitDict(infos))
        contents.write(self.data_path, self.corpus, self.info, stats, indices, plan["arguments"], plan["items"])

    def _write_split(self, split: str, indices: Sequence[Mapping[str, Any]]) -> splits.SplitInfo | None:
        entries = [
            (key, index["path"], offset, length)
            for index in indices
            for where, key, offset, length in index["records"]
            if where == split
        ]
        if not entries:
            return None
        if self.corpus.shuffle:
            entries.sort(key=lambda entry: hashlib.blake2b(entry[0].encode(), digest_size=16).digest())
        total = sum(entry[3] for entry in entries)
        count = min(len(entries), self._plan["shards"] or max(1, -(-total // SHARD_BYTES)))
        template = naming.ShardedFileTemplate(
            data_dir=self.data_path,
            dataset_name=self.name,
            split=split,
            filetype_suffix=self.info.file_format.file_suffix,
        )
        bounds = [round(i * len(entries) / count) for i in range(count + 1)]
        for shard in range(count):
            path = template.sharded_filepath(shard_index=shard, num_shards=count)
            FORMATS[self._plan["format"]](path, _records(entries[bounds[shard] : bounds[shard + 1]]))
        lengths = [bounds[i + 1] - bounds[i] for i in range(count)]
        return splits.SplitInfo(name=split, shard_lengths=lengths, num_bytes=total, filename_template=template)


def _records(entries: Sequence[tuple]) -> Iterator[tuple[str, bytes]]:
    files: dict[pathlib.Path, Any] = {}
    try:
        for key, path, offset, length in entries:
            if path not in files:
                if len(files) >= 64:  # shuffled records come from all spool files: keep a few open
                    files.pop(next(iter(files))).close()
                files[path] = open(path, "rb")  # noqa: SIM115 - closed below
            files[path].seek(offset)
            yield key, files[path].read(length)
    finally:
        for file in files.values():
            file.close()


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
    """Prepares a corpus; a data set that is already complete is left as it is.

    Args:
      corpus: a name in `data_prep.corpora.CORPORA`.
      source: the corpus as it was downloaded.
      output: the data set is written to `output/name/version/`.
      format: "array_record" or "tfrecord".
      shards: files a split; None = one for every 256 MB.
      workers: processes; None = one a core. The result does not depend on it.
      name: of the data set's folder; default the corpus' name.
      max_items: at most so many items of each split, evenly spread.
      quiet: no progress bar.
      runner: "local" processes, or "beam". The result does not depend on it.
      beam_pipeline_options: flags of Beam's runner, see `data_prep.beam.pipeline_options`.
      **options: fields of the corpus' `Options`.

    Returns:
      The folder with `features.json`, and whether anything was done.

    Raises:
      UserError: anything that the user can put right; nothing half-written is left behind.
    """
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("tensorflow_datasets").setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    kind = CORPORA[corpus]
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if runner not in RUNNERS:
        raise unknown("runner", runner, RUNNERS)
    if beam_pipeline_options and runner != "beam":
        raise UserError("--beam_pipeline_options needs --runner=beam.")
    for flag, value in (("shards", shards), ("workers", workers), ("max_items", max_items)):
        if value is not None and value < 1:
            raise UserError(f"--{flag} must be at least 1, not {value}.")
    known = {field.name for field in dataclasses.fields(kind.Options)}
    for option in options:
        if option not in known:
            raise unknown(f"option of {corpus}", option, known)
    chosen = kind.Options(**options)
    chosen.check()
    name = name or kind.name
    if not name.replace("_", "").isalnum() or not name.isascii() or not name[0].isalpha():
        raise UserError(f"--name={name}: letters, digits and underscores only, beginning with a letter.")
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
    arguments = json.loads(json.dumps(arguments))  # as the card will give them back
    target = output / name / SCHEMA_VERSION
    if target.exists():
        _check_same(target, arguments)
        return target, False
    if not source.is_dir():
        raise UserError(f"--source={source} is not a folder.")
    instance = kind(source, chosen)
    items = select(list(instance.items()), max_items)
    check_items(instance, items)
    instance.gather(items, quiet)
    described = [arguments, instance.state(), [_identity(item) for item in items]]
    identity = hashlib.sha256(json.dumps(described, default=str).encode())
    spool = output / name / f".spool-{identity.hexdigest()[:16]}"
    try:
        (output / name).mkdir(parents=True, exist_ok=True)
        for left in (output / name).glob("incomplete.*"):  # of a run that was killed while publishing
            shutil.rmtree(left, ignore_errors=True)
        for left in (output / name).glob(".spool-*"):
            if left != spool:  # of other arguments or another state of the source
                shutil.rmtree(left, ignore_errors=True)
        plan = {"items": items, "spool": spool, "shards": shards, "workers": workers or os.cpu_count() or 1}
        builder = CorpusBuilder(
            instance, name=name, output=output, format=format, quiet=quiet, arguments=arguments, **plan
        )
        builder.download_and_prepare(
            download_dir=spool / "downloads",
            file_format=format,
            download_config=tfds.download.DownloadConfig(try_download_gcs=False, beam_options=beam_options),
        )
    except KeyboardInterrupt:
        raise  # what is in the spool is used by the next run
    except OSError as error:
        _clean(output, name, spool)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"the disk of {output} is full: free some space and run again.") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EPERM):
            raise UserError(f"--output={output} cannot be written: {error.strerror}.") from error
        raise
    except BaseException:
        _clean(output, name, spool)
        raise
    shutil.rmtree(spool, ignore_errors=True)
    return target, True


def _identity(item: Item) -> list[Any]:
    """What an item is and, for files it names, their size and time: changed input is not taken from the spool."""
    stamps = []
    for value in item.payload.values():
        if isinstance(value, str) and os.path.isabs(value) and os.path.isfile(value):
            status = os.stat(value)
            stamps.append([status.st_size, status.st_mtime_ns])
    return [item.key, item.split, item.subject, dict(item.payload), stamps]


def _clean(output: pathlib.Path, name: str, spool: pathlib.Path) -> None:
    shutil.rmtree(spool, ignore_errors=True)
    for folder in (output / name, output):
        try:
            folder.rmdir()  # only if nothing else is in it
        except OSError:
            return


def _check_same(target: pathlib.Path, arguments: Mapping[str, Any]) -> None:
    try:
        before = json.loads((target / contents.FILENAME).read_text())["arguments"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{target} exists but is no data set of this program: remove it or use another --output."
        ) from error
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
    """At most `max_items` of each split, evenly spread over its list so that no class or speaker is favoured."""
    if max_items is None:
        return items
    out = []
    for split in dict.fromkeys(item.split for item in items):
        part = [item for item in items if item.split == split]
        count = min(max_items, len(part))
        out += [part[i * len(part) // count] for i in range(count)]
    return out


def check_items(corpus: Corpus, items: Sequence[Item]) -> None:
    """Raises a `UserError` for no items, a key used twice, or a subject in two splits."""
    if not items:
        raise corpus.wrong_layout("nothing that it consists of was found")
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
