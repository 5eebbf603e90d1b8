"""A digest for every file of a checkpoint: written before the checkpoint is complete, compared when it is read.

`SHA256SUMS` has the form that `sha256sum --check` reads. A checkpoint without one is from an older version.
"""

from collections.abc import Iterator

from etils import epath

from media.digests import of_file

FILENAME = "SHA256SUMS"
_CHANGES = "_CHECKPOINT_METADATA"  # Orbax enters the time of the commit later; it holds no values


def write(folder: epath.Path) -> None:
    """Writes the digests of all files in a checkpoint's folder."""
    names = sorted(str(path.relative_to(folder)) for path in files(folder))
    lines = [f"{of_file(folder / name)}  {name}\n" for name in names if name not in (FILENAME, _CHANGES)]
    (folder / FILENAME).write_text("".join(lines))


def damaged(folder: epath.Path, items: tuple[str, ...]) -> str | None:
    """The first file of some items (`state`, `data`, …) that is not as it was written; None if all are.

    Raises:
      OSError: the storage does not give a file.
    """
    path = folder / FILENAME
    if not path.exists():
        return None
    lines = [line.partition("  ") for line in path.read_bytes().decode(errors="replace").splitlines()]
    listed = {name: digest for digest, _, name in lines}
    found = [str(one.relative_to(folder)) for item in items if (folder / item).exists() for one in files(folder / item)]
    for name in sorted({*found, *(name for name in listed if name.split("/")[0] in items)}):
        if name not in listed or not (folder / name).exists() or of_file(folder / name) != listed[name]:
            return name
    return None


def files(folder: epath.Path) -> Iterator[epath.Path]:
    """Yields the files below a folder."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from files(path)
        else:
            yield path
