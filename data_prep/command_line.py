"""The command line of data_prep. Options come from the corpus's `Options`; an error is one line and exit status 2."""

import argparse
import json
import pathlib
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn

from data_prep.card.contents import FILENAME, SKIPPED
from data_prep.corpora import CORPORA
from data_prep.corpora.base import Corpus
from data_prep.preparation import prepare, rehearse
from media.errors import UserError
from media.standard_output import ends_quietly
from media.termination import ends_when_stopped

EPILOG = "For the options of a corpus: python -m data_prep CORPUS --help."


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports errors like the rest of the program."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See python -m data_prep --help.")


@ends_quietly
@ends_when_stopped("run the same command again; finished work is kept")
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
      The exit status: 0 done, 2 user error, 130 interrupted, 141 broken pipe, 143 terminated.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_general_help())
        return 0 if arguments else 2
    if arguments[0] == "--list":
        print(_table())
        return 0
    if arguments[0].startswith("-"):
        raise UserError("the first argument is the corpus: python -m data_prep CORPUS --source=DIR --output=DIR.")
    corpus = CORPORA[arguments[0]]
    values = vars(_parser(corpus).parse_args(arguments[1:]))
    if values.get("dry_run"):
        options = {field.name: values[field.name] for field in fields(corpus.Options)}
        found, matches = rehearse(corpus.name, values["source"], options)
        print(found)
        return 0 if matches else 2
    if values["output"] is None:
        raise UserError("the following arguments are required: --output. See python -m data_prep --help.")
    target, done = prepare(corpus.name, values.pop("source"), values.pop("output"), **values)
    print(f"{target}" if done else f"{target} is complete already: nothing to do")
    if done:
        print(_summary(target))
    return 0


def _general_help() -> str:
    usage = "usage: python -m data_prep CORPUS --source=DIR --output=DIR [--format=array_record|tfrecord] [--shards=N]"
    return (
        f"{usage}\n       [--workers=N] [--runner=beam] [options of the corpus]\n       python -m data_prep --list\n\n"
        + "\n".join(["Turns a corpus as downloaded into sharded records.", "", _table(), "", EPILOG])
    )


def _table() -> str:
    return "\n".join(f"  {name:<20} {CORPORA[name].kind:<9} {CORPORA[name].title}" for name in CORPORA)


def _parser(corpus: type[Corpus]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"python -m data_prep {corpus.name}",
        description=f"{corpus.title}.\n\n{corpus.instructions()}\n\nLicence: {corpus.licence}",
        epilog=textwrap.dedent(corpus.Options.__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--source", required=True, metavar="DIR", help="the corpus as downloaded")
    dry = any(field.name == "dry_run" for field in fields(corpus.Options))  # which needs no output
    parser.add_argument("--output", required=not dry, metavar="DIR", help="records go to DIR/NAME/VERSION")
    parser.add_argument(
        "--format", default="array_record", metavar="array_record|tfrecord", help="file format of the shards"
    )
    parser.add_argument("--shards", type=int, metavar="N", help="files per split (default: one per 256 MB)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--name", metavar="NAME", help=f"name of the data set's folder (default: {corpus.name})")
    parser.add_argument("--max_items", type=int, metavar="N", help="at most N items per split, evenly spread")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--runner", default="local", metavar="local|beam", help="local processes or Apache Beam")
    parser.add_argument(
        "--beam_pipeline_options",
        default="",
        metavar="FLAGS",
        help="for Beam's runner, such as runner=FlinkRunner,parallelism=8",
    )
    for field in fields(corpus.Options):
        kind = type(field.default)
        convert = _boolean if kind is bool else kind
        shown = f"default: {field.default!r}"
        bare: dict[str, Any] = {"nargs": "?", "const": True} if kind is bool else {}
        parser.add_argument(f"--{field.name}", type=convert, default=field.default, metavar="VALUE", help=shown, **bare)
    return parser


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "yes", "1"):
        return True
    if text.lower() in ("false", "no", "0"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, not {text!r}")


def _summary(target: pathlib.Path) -> str:
    card = json.loads((target / FILENAME).read_text())
    lines = []
    for name, split in card["splits"].items():
        counts = ", ".join(f"{n} {key.replace('_', ' ')}" for key, n in split["counts"].items())
        labels = ", ".join(f"{key} {n}" for key, n in split["labels"].items())
        lines.append(f"  {name}: {counts}; {labels}")
        for flag, found in split.get("annotation", {}).items():
            lines.append(f"  {name}: {flag}: {found['recordings']} recordings, such as {found['first'][0]}")
    lines += [f"  note: {note}" for note in card.get("notes", ())]
    if card["items_left_out"]:
        lines.append("  left out: " + ", ".join(f"{reason} {n}" for reason, n in card["items_left_out"].items()))
    if card["items_skipped"]:
        lines.append(f"  skipped: {card['items_skipped']} of {card['items']} items, see {target / SKIPPED}")
    return "\n".join(lines)
