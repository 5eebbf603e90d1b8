"""What a corpus is: its items as they are on disk, and a pure function from one item to its records."""

import abc
import dataclasses
import os
import pathlib
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from media import listing
from media.errors import UserError
from media.files import shown

LISTED = 10  # files that were passed over, by name


@dataclasses.dataclass(frozen=True)
class Item:
    """One unit of work: a video, an image, a row of a table.

    Attributes:
      key: names the item to the user; unique within the corpus.
      split: "train", "dev" or "test".
      subject: whose data it is, "" if unknown. A subject may be in one split only.
      payload: what `process` needs: plain picklable values by name. A file is named by its absolute path, so that a
        change of the file is noticed.
    """

    key: str
    split: str
    subject: str = ""
    payload: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """The options of a corpus that has none."""

    def check(self) -> None:
        """Nothing to check."""


class Corpus(abc.ABC):
    """One corpus. Instances hold only folders and options, so they can be pickled.

    Attributes:
      name: on the command line, and of the data set's folder.
      kind: of record, "faces", "triplets", "clips" or "features".
      title, citation, licence, homepage: for the card and TFDS.
      access: how to get the corpus.
      layout: the tree expected below `--source`.
      shuffle: whether the records are stored in random order (clips keep their order).
      chunk: items per task.
      Options: dataclass of the corpus's options, with a `check` method.
      passing: names of options that do not affect the records and are not recorded.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    title: ClassVar[str]
    citation: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    homepage: ClassVar[str] = ""
    access: ClassVar[str]
    layout: ClassVar[str]
    shuffle: ClassVar[bool] = True
    chunk: ClassVar[int] = 256
    Options: ClassVar[type] = NoOptions
    passing: ClassVar[tuple[str, ...]] = ()

    def __init__(self, source: pathlib.Path, options: Any, output: pathlib.Path | None = None):
        """Reads from `source`; `output`, the data set to be written, is never input even if it lies there."""
        self.source = pathlib.Path(source).absolute()  # so are the paths in payloads, see `Item`
        self.options = options
        self.output = output
        self.notes: list[str] = []  # how the source was understood, for the summary and the card

    @abc.abstractmethod
    def features(self) -> tfds.features.FeaturesDict:
        """Returns the schema of the records."""

    @abc.abstractmethod
    def items(self) -> Sequence[Item]:
        """Lists the items in a fixed order.

        Raises:
          UserError: the layout is not as expected, or a table cannot be read.
        """

    def gather(self, items: Sequence[Item], quiet: bool) -> None:  # noqa: B027 - most have nothing to fetch
        """Fetches what the items need and lack; called once before any item is processed."""

    def sources(self, item: Item) -> Iterator[str]:
        """Yields the files and folders that an item's records depend on: by default every absolute path in its payload.

        If one of them changes, finished work on the item is not used again.
        """
        for value in item.payload.values():
            if isinstance(value, str) and os.path.isabs(value):
                yield value

    @abc.abstractmethod
    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields the records of one item. It is pure and may run in any process.

        Raises:
          BadItem: the item cannot be read; it is skipped and listed.
          Dropped: the corpus's rules leave the item out; it is counted.
        """

    def review(self, labels: Mapping[str, Mapping[str, int]]) -> None:  # noqa: B027 - most accept any counts
        """Checks the counts of each label by split before publication; may raise a `UserError`."""

    def card(self) -> dict[str, Any]:
        """What the card says besides what it says of every corpus; known after `items`."""
        return {}

    def rehearse(self) -> tuple[str, bool]:
        """What a dry run finds, for the screen, and whether all of it matches; for corpora with an option `dry_run`."""
        raise NotImplementedError

    @classmethod
    def instructions(cls) -> str:
        """Says how to get the corpus and where to put it, for TFDS's `MANUAL_DOWNLOAD_INSTRUCTIONS` and `--help`."""
        tree = textwrap.indent(textwrap.dedent(cls.layout).strip(), "  ")
        return f"{cls.access}\nExpected below --source:\n{tree}"

    def files(self, folder: pathlib.Path, suffixes: Sequence[str], recursive: bool = True) -> list[pathlib.Path]:
        """Lists the files with one of the suffixes below a folder, sorted, each once even if links form a loop.

        Hidden files, system folders and what this program wrote are left out.

        Raises:
          UserError: a folder cannot be read.
        """
        return [path for path in self._below(folder, recursive) if path.suffix.lower() in suffixes]

    def files_of_any_name(self, wanted: Callable[[pathlib.Path], bool], besides: str = "") -> list[pathlib.Path]:
        """Lists the wanted files below the source as `files` does, and counts and names the others in `notes`."""
        found = self._below(self.source, True)
        chosen = [path for path in found if wanted(path)]
        taken = {*chosen, self.source / besides}
        over = [shown(path.relative_to(self.source)) for path in found if path not in taken]
        if over:
            first = ", ".join(over[:LISTED]) + (", …" if len(over) > LISTED else "")
            self.notes.append(f"passed over: {len(over)} files of other kinds ({first})")
        return chosen

    def _below(self, folder: pathlib.Path, recursive: bool) -> list[pathlib.Path]:
        def unreadable(error: OSError) -> None:
            raise UserError(f"{error.filename} cannot be read: {error.strerror}.") from error

        skip = (self.output,) if self.output else ()
        return list(listing.files(folder, recursive=recursive, skip=skip, unreadable=unreadable))

    def wrong_layout(self, found: str) -> UserError:
        """Returns the error for a source that does not look like this corpus."""
        expected = " | ".join(line.strip() for line in self.layout.strip().splitlines())
        return UserError(f"{self.source} is not laid out as {self.name}: {found}. Expected below --source: {expected}")
