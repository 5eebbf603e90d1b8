"""The archive of a release: a zip file of runs, with a manifest of the SHA-256 of every other file.

Files are stored uncompressed (weights would shrink by less than a tenth) and under one fixed date, so the same runs
give the same bytes with any version of zlib.
"""

import hashlib
import io
import json
import os
import pathlib
import re
import stat
import zipfile
from collections.abc import Mapping
from typing import Any

from avemo.runs import weights
from media.errors import UserError
from media.files import own_folder
from media.zip_files import BROKEN, open_zip

FORMAT = 1
LIMIT = 60_000_000  # bytes per archive
MANIFEST = "manifest.json"
SUFFIX = ".zip"
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can hold
CARD = "MODEL_CARD.md"
ENCODERS = "encoders.json"
RUN_FILES = ("config.json", "result.json", ENCODERS, weights.FILENAME)
NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")  # of a release and of its runs
DETECTOR = re.compile(r"[A-Za-z0-9_][\w.-]*\.onnx", re.ASCII)


def write(path: str | os.PathLike, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> int:
    """Writes `files` (bytes by path in the archive) and their manifest; returns the archive's size in bytes.

    Raises:
      UserError: the archive would exceed `LIMIT` or cannot be written. Nothing is left behind.
    """
    path = pathlib.Path(path)
    entries = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    manifest = {"format": FORMAT, **manifest, "files": dict(sorted(entries.items()))}
    contents = {**files, MANIFEST: (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as out:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16  # as on Unix, on any system
            out.writestr(entry, contents[name])
    size = buffer.tell()
    if size > LIMIT:
        largest = ", ".join(
            f"{name} {len(data) / 1e6:.1f} MB" for name, data in sorted(files.items(), key=lambda f: -len(f[1]))[:3]
        )
        raise UserError(
            f"{path} would have {size / 1e6:.1f} MB, more than the {LIMIT / 1e6:.0f} MB of a release: leave a run out "
            f"of --workdir, or release smaller networks (the largest files: {largest})."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with own_folder(path.parent, f".{path.name}-") as staging:
            (staging / path.name).write_bytes(buffer.getvalue())
            os.replace(staging / path.name, path)
    except OSError as error:
        raise UserError(f"--output={path} cannot be written: {error.strerror or error}.") from error
    return size


def read(data: bytes, source: str) -> dict[str, bytes]:
    """Returns the files of an archive, including the manifest against which every other one is checked.

    Args:
      data: the archive's bytes.
      source: the archive's name, for errors.

    Raises:
      UserError: the archive is not a release, has another format, is damaged, exceeds `LIMIT` packed or unpacked, or
        holds anything but the files that `pack` writes.
    """
    if len(data) > LIMIT:
        raise UserError(f"{source} is larger than the {LIMIT / 1e6:.0f} MB that a release may have.")
    try:
        with open_zip(io.BytesIO(data)) as archive:
            # A release that was packed again by hand has entries for the folders of its runs.
            members = [e for e in archive.infolist() if not (e.is_dir() and NAME.fullmatch(e.filename[:-1]))]
            for entry in members:
                _check_name(entry, source)
            if sum(entry.file_size for entry in members) > LIMIT:
                raise UserError(f"{source} unpacks to more than the {LIMIT / 1e6:.0f} MB that a release may have.")
            files = {entry.filename: archive.read(entry) for entry in members}
        manifest = json.loads(files[MANIFEST])
        version, expected = manifest["format"], {n: e["sha256"] for n, e in manifest["files"].items()}
    except KeyError as error:
        raise UserError(f"{source} is not a release of avemo (no {error} in it).") from error
    except (*BROKEN, AttributeError) as error:
        raise UserError(f"{source} is damaged or not a release ({error}): copy or download it again.") from error
    if version != FORMAT:
        raise UserError(
            f"{source} is of format {version}, but this version reads {FORMAT}: use the version of avemo that wrote it."
        )
    found = {name: hashlib.sha256(value).hexdigest() for name, value in files.items() if name != MANIFEST}
    wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if wrong or len(files) != len(members):
        what = wrong[0] if wrong else "a file that it holds twice"
        raise UserError(f"{source} is damaged: {what} does not match its manifest. Copy or download it again.")
    return files


def _check_name(entry: zipfile.ZipInfo, source: str) -> None:
    """Refuses every file that `pack` does not write: a run folder is opened as it lies there."""
    name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
    unsafe = name.startswith("/") or "\\" in name or ":" in name or not {"", ".", ".."}.isdisjoint(name.split("/"))
    if unsafe or kind not in (0, stat.S_IFREG):
        raise UserError(
            f"{source} holds {name!r}, which leads out of its folder or is not a plain file: do not trust it."
        )
    run, _, file = name.partition("/")
    in_run = NAME.fullmatch(run) and (file in RUN_FILES or DETECTOR.fullmatch(file))
    if not in_run and name not in (MANIFEST, CARD):
        raise UserError(f"{source} holds {name!r}, which no release has: do not trust it.")
