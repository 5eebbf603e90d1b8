"""Packs one run into one file, for a drive or another machine: what analysis needs, without training state or data.

Unlike a release it keeps the log and the predictions, names no licence, and may be of any size. `avemo.load` and the
commands `predict`, `evaluate`, `extract`, `export` and `compare` take the file. A fusion's encoders are not in it.
"""

import os
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

from etils import epath

from avemo.runs import archive, checkpoints, installed, run_folder, subruns, weights, zipped
from media.errors import UserError
from media.files import own_folder, write_errors

_FILES = ("config.json", "result.json", "metrics.jsonl", "input.json", "nonfinite.json", archive.ENCODERS)


def pack(workdir: str, output: str) -> dict[str, Any]:
    """Writes a run as `output`, whole or not at all.

    Args:
      workdir: run folder of any stage, finished or not, or name of a released run.
      output: FILE.zip.

    Returns:
      `output`, `bytes`, `step`: whose weights it holds, and `splits`: those with predictions.

    Raises:
      UserError: the folder is not a run, has no checkpoint yet, or `output` cannot be written.
    """
    if not output.endswith(zipped.SUFFIX):
        raise UserError(f"--output={output}: a packed run is a file NAME{zipped.SUFFIX}.")
    if "://" in output:
        raise UserError(f"--output={output}: write the file to a local disk, then copy it to the bucket.")
    folder = epath.Path(run_folder.require(installed.find(workdir), "run"))
    _, step, variables = checkpoints.load(folder)
    target = pathlib.Path(output)
    name = epath.Path(os.path.abspath(folder) if "://" not in str(folder) else folder).name
    if target.is_dir() or any(parent.exists() and not parent.is_dir() for parent in target.parents):
        raise UserError(f"--output={output} cannot be written: it is a folder, or lies below a file.")
    with write_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with own_folder(target.parent, f".{target.name}-") as staging:
            # Numbers hardly shrink: they are stored.
            with zipfile.ZipFile(staging / target.name, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(f"{name}/{weights.FILENAME}", weights.pack(step, variables))
                for path, data in _files(folder):
                    archive.writestr(f"{name}/{path}", data)
            os.replace(staging / target.name, target)
    splits = sorted(path.stem for path in _predictions(folder))
    return {"output": output, "bytes": target.stat().st_size, "step": step, "splits": splits}


def _files(folder: epath.Path) -> Iterator[tuple[str, bytes]]:
    yield from ((name, (folder / name).read_bytes()) for name in _FILES if (folder / name).exists())
    for path in _predictions(folder):
        yield f"predictions/{path.name}", path.read_bytes()
    for path in sorted(folder.glob("*.onnx")):  # the face detector of a released run
        yield path.name, path.read_bytes()
    parts = folder / subruns.FOLDER
    for part in sorted(parts.iterdir()) if parts.exists() else ():
        for path in sorted(part.iterdir()):
            yield f"{subruns.FOLDER}/{part.name}/{path.name}", path.read_bytes()


def _predictions(folder: epath.Path) -> list[epath.Path]:
    return sorted((folder / "predictions").glob("*.npz"))
