"""What a corpus is: its items as they lie on the disk, and the pure function from one item to its records."""

import abc
import dataclasses
import pathlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from media.errors import UserError


@dataclasses.dataclass(frozen=True)
class Item:
    """One unit of work: a video, an image, a row of a table.

    key: unique within the corpus, names the item to the user; subject: whose data it is, "" if not known: no subject
    may be in two splits; payload: what `process` needs, picklable and plain.
    """

    key: str
    split: str
    subject: str = ""
    payload: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """A corpus without options of its own."""

    def check(self) -> None:
        """Nothing to check."""


class Corpus(abc.ABC):
    """One corpus of the field. Instances are picklable: they hold the source folder and the options, nothing else.

    Class attributes: name (of the command line and of the data set's folder); kind of record, "faces", "triplets" or
    "clips"; title; citation; licence; homepage; access, how one gets the corpus; layout, the tree that is
    expected below `--source`; shuffle, whether the records are stored in an order of their own (clips keep theirs);
    chunk, items a task; passing, names of options that are not kept.
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
    passing: ClassVar[tuple[str, ...]] = ()  # they do not change what results

    def __init__(self, source: pathlib.Path, options: Any):
        self.source = pathlib.Path(source)
        self.options = options

    @abc.abstractmethod
    def features(self) -> tfds.features.FeaturesDict:
        """Schema of the records."""

    @abc.abstractmethod
    def items(self) -> Sequence[Item]:
        """Lists the items in a fixed order.

        Raises:
          UserError: the layout is not the expected one, or a table cannot be read.
        """

    def gather(self, items: Sequence[Item], quiet: bool) -> None:  # noqa: B027 - most have all that they need
        """Fetches what the items need and is not there yet; called once, before any is processed."""

    def state(self) -> str:
        """What the result depends on beside the options and the files that the items name."""
        return ""

    @abc.abstractmethod
    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields the records of one item; pure, and run in any process.

        Raises:
          BadItem: the item cannot be read: skipped and listed.
          Dropped: the corpus' rules leave it out: counted.
        """

    def review(self, labels: Mapping[str, Mapping[str, int]]) -> None:  # noqa: B027 - most have nothing to object
        """Looks at the counts of each label by split before anything is published; may raise a `UserError`."""

    @classmethod
    def instructions(cls) -> str:
        """How to get the corpus by hand and where to put it, for TFDS's `MANUAL_DOWNLOAD_INSTRUCTIONS` and `--help`."""
        tree = textwrap.indent(textwrap.dedent(cls.layout).strip(), "  ")
        return f"{cls.access}\nExpected below --source:\n{tree}"

    def wrong_layout(self, found: str) -> UserError:
        """The error for a source that does not look like this corpus."""
        expected = " | ".join(line.strip() for line in self.layout.strip().splitlines())
        return UserError(f"{self.source} is not laid out as {self.name}: {found}. Expected below --source: {expected}")


def listing(folder: pathlib.Path, suffixes: Sequence[str], recursive: bool = True) -> list[pathlib.Path]:
    """Files with one of the suffixes below a folder, sorted, each once: a loop of links is walked only once."""
    found: list[pathlib.Path] = []
    seen: set[pathlib.Path] = set()

    def walk(directory: pathlib.Path) -> None:
        real = directory.resolve()
        if real in seen:
            return
        seen.add(real)
        for entry in sorted(directory.iterdir(), key=lambda p: p.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if recursive:
                    walk(entry)
            elif entry.suffix.lower() in suffixes:
                found.append(entry)

    walk(folder)
    return found
