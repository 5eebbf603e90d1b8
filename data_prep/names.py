"""Names in a table and the files that they mean."""

import collections
import difflib
import posixpath
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence

from media.errors import UserError

_NEAREST = 20  # a missing file's nearest name is looked up for so many: comparing all with all takes quadratic time
# A suffix of a file, such as .mp4; in S01.1 and S01.2 the last part tells recordings apart.
_SUFFIX = re.compile(r"(?<=[^/])\.(?:[a-z][a-z0-9]{1,4}|3gp|3g2)$")


def _spelling(name: str) -> str:
    return unicodedata.normalize("NFC", posixpath.normpath(name.replace("\\", "/")))


def _any_case(name: str) -> str:
    return _spelling(name).casefold()


def _without_suffix(name: str) -> str:
    return _SUFFIX.sub("", _any_case(name))


def match(
    wanted: Collection[str], present: Collection[str], other_suffixes: Collection[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Finds the file that each name of the table means.

    Exact names come first, then names that differ in the form of accents, slashes or a leading `./`, then in case, then
    names without their suffix, and finally names whose suffixes differ, where `other_suffixes` (such as .mp4) has them:
    S01.left and S01.right are two recordings. A name that fits several files matches none of them.

    Returns:
      file by name, and notes.

    Raises:
      UserError: two names mean one file.
    """

    def without_known_suffix(name: str) -> str:
        known = posixpath.splitext(_any_case(name))[1] in other_suffixes
        return _without_suffix(name) if known else _any_case(name)

    found = {name: name for name in set(wanted) & set(present)}
    notes = []
    steps: tuple[tuple[Callable[[str], str], Callable[[str], str], str], ...] = (
        (_spelling, _spelling, "the form of accents or slashes is"),
        (_any_case, _any_case, "case is"),
        (_any_case, _without_suffix, "suffixes are"),
        *([(without_known_suffix, without_known_suffix, "suffixes are")] if other_suffixes else []),
    )
    for of_table, of_file, what in steps:
        by_key = collections.defaultdict(list)
        for file in present:
            by_key[of_file(file)].append(file)
        matched = {
            name: files[0]
            for name in sorted(set(wanted) - set(found))
            if len(files := by_key.get(of_table(name), [])) == 1
        }
        if matched:
            name, file = next(iter(matched.items()))
            notes.append(f"{len(matched)} names match only if {what} ignored, such as {name!r} for {file!r}")
        found |= matched
    names: dict[str, str] = {}
    for name, file in sorted(found.items()):
        if names.setdefault(file, name) != name:
            raise UserError(f"both {names[file]!r} and {name!r} in the table mean {file}: use one name.")
    return found, notes


def nearest(missing: Sequence[str], present: Collection[str]) -> dict[str, str]:
    """The most similar file of the first few missing names, for those that have one."""
    out = {}
    for name in missing[:_NEAREST]:
        near = difflib.get_close_matches(name, present, n=1, cutoff=0.6)
        if near:
            out[name] = near[0]
    return out
