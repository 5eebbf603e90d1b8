"""The TFDS builder of every corpus: runs the tasks, then writes shards, `dataset_info.json` and the card."""

import dataclasses
import hashlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder, file_adapters, naming, splits

from data_prep import beam, task_runner
from data_prep.card import contents
from data_prep.card.counts import SplitCounts
from data_prep.corpora.base import Corpus, Item
from media import digests, tfrecord
from media.errors import UserError
from media.records import SCHEMA_VERSION

FORMATS: dict[str, Callable[[Any, Iterator[tuple[str, bytes]]], Any]] = {
    "array_record": file_adapters.ArrayRecordFileAdapter.write_examples,
    "tfrecord": tfrecord.write,  # TFDS's writer needs TensorFlow
}
SHARD_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to prepare and how.

    Attributes:
      items: all items, in order.
      spool: folder for the tasks' records.
      arguments: recorded in the card.
      format: a name in `FORMATS`.
      shards: files per split; None = one per `SHARD_BYTES`.
      workers: number of processes.
      quiet: no progress bar.
    """

    items: Sequence[Item]
    spool: pathlib.Path
    arguments: Mapping[str, Any]
    format: str = "array_record"
    shards: int | None = None
    workers: int = 1
    quiet: bool = False


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Skips TFDS's bucket: it does not have our data sets, and looking there leaves a temporary folder behind."""


class CorpusBuilder(dataset_builder.FileReaderBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The TFDS builder of any `Corpus`.

    Unlike a `GeneratorBasedBuilder` it keeps the records in the spool of `data_prep.task_runner` until the shards are
    written: several processes, resumable, constant memory. TFDS's shuffler holds up to 1 GB and then needs TensorFlow.
    """

    VERSION = tfds.core.Version(SCHEMA_VERSION)

    def __init__(self, corpus: Corpus, *, name: str, output: pathlib.Path, plan: Plan | None = None):
        """Without a `plan` the builder only describes the data set."""
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
        """Silences TFDS, which would announce a download."""

    def _log_download_done(self) -> None:
        """Silences TFDS; the command line reports the result."""

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        del dl_manager
        plan, options = self._plan, getattr(download_config, "beam_options", None)
        assert plan is not None
        execute = None if options is None else beam.execute(options)
        indices = task_runner.run(self.corpus, plan.items, plan.spool, plan.workers, plan.quiet, execute)
        counts = SplitCounts(self.corpus.kind)
        for index in indices:
            counts.merge(SplitCounts.from_json(self.corpus.kind, index["stats"]))
        try:
            self.corpus.review({name: split["labels"] for name, split in counts.splits.items()})
        except UserError:
            shutil.rmtree(plan.spool, ignore_errors=True)  # finished with arguments that give no data set
            raise
        written = [self._write_split(plan, name, indices) for name in ("train", "dev", "test")]
        infos = [info for info in written if info is not None]
        if not infos:
            raise UserError(f"{self.corpus.source} gave no record at all: {contents.reasons(indices)}.")
        self.info.set_splits(splits.SplitDict(infos))
        contents.write(self.data_path, self.corpus, self.info, counts, indices, plan.arguments, plan.items)
        digests.write(self.data_path, [path.name for path in self.data_path.iterdir() if "record-" in path.name])

    def _write_split(self, plan: Plan, split: str, indices: Sequence[Mapping[str, Any]]) -> splits.SplitInfo | None:
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
        count = min(len(entries), plan.shards or max(1, -(-total // SHARD_BYTES)))
        template = naming.ShardedFileTemplate(
            data_dir=self.data_path,
            dataset_name=self.name,
            split=split,
            filetype_suffix=self.info.file_format.file_suffix,
        )
        bounds = [round(i * len(entries) / count) for i in range(count + 1)]
        for shard in range(count):
            path = template.sharded_filepath(shard_index=shard, num_shards=count)
            FORMATS[plan.format](path, task_runner.records(entries[bounds[shard] : bounds[shard + 1]]))
        lengths = [bounds[i + 1] - bounds[i] for i in range(count)]
        return splits.SplitInfo(name=split, shard_lengths=lengths, num_bytes=total, filename_template=template)
