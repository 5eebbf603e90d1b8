"""Arrays and Parquet: `.npy`, `.npz`, HDF5 and Parquet files, of one recording or of all.

In a file of all recordings each has an array, or a group of arrays, under its name. A group, like the file of one
recording, may hold `features`, and beside them `time` (or `intervals`, begin and end) and `mask` or `confidence`.
"""

import dataclasses
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_prep.features.rows import KEYS, Part, columns_of, listed
from data_prep.features.specs import TableSpec
from data_prep.tables import TableError
from media.errors import UserError

HDF5 = (".h5", ".hdf5", ".hdf", ".csd")
SUFFIXES = (".npy", ".npz", *HDF5, ".parquet", ".pq")
_FEATURES = ("features", "feature", "embeddings", "embedding", "feats", "feat", "values", "data", "x", "arr_0")
_TIMES = ("time", "times", "timestamp", "timestamps")
_MASKS = ("mask", "valid", "success")


@dataclasses.dataclass(frozen=True)
class Arrays:
    """What one recording's arrays hold.

    Attributes:
      names: of the columns of `values`.
      values: float `[N, D]`.
      time: `[N]`, in the unit of the table's specification; None if unknown.
      success, confidence: `[N]`, or None.
    """

    names: list[str]
    values: np.ndarray
    time: np.ndarray | None = None
    success: np.ndarray | None = None
    confidence: np.ndarray | None = None


def members(path: pathlib.Path, spec: TableSpec) -> list[str]:
    """Names of the recordings that a file holds; [""] if it holds one.

    Raises:
      OSError, TableError: the file cannot be read.
      UserError: a package is missing.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return [""]
    if suffix == ".npz":
        with _npz(path) as file:
            return _names({name: _member(file, name).ndim for name in file.files})
    if suffix in HDF5:
        with _hdf5(path) as file:
            root = _root(file)
            return _names({name: 0 if hasattr(root[name], "keys") else root[name].ndim for name in root})
    return _parquet_names(path, spec)


def _names(found: Mapping[str, int]) -> list[str]:
    """The recordings in a file with members of these numbers of axes; a group counts as 0 axes."""
    if not found:
        raise TableError("it holds no array")
    known = {*_FEATURES, *_TIMES, *_MASKS, "intervals", "confidence"}
    return [""] if any(name.lower() in known for name in found) else sorted(found)


def read(part: Part, spec: TableSpec) -> Arrays:
    """Reads one recording.

    Raises:
      OSError, TableError: the file cannot be read.
      UserError: a package is missing.
    """
    path = pathlib.Path(part.path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _one({"features": _loaded(path)})
    if suffix == ".npz":
        with _npz(path) as file:
            return _one({name: _member(file, name) for name in ([part.member] if part.member else file.files)})
    if suffix in HDF5:
        with _hdf5(path) as file:
            node = _root(file)[part.member] if part.member else _root(file)
            if not hasattr(node, "keys"):
                return _one({"features": np.asarray(node)})
            return _one({name: np.asarray(node[name]) for name in node if not hasattr(node[name], "keys")})
    return _parquet(path, part, spec)


def _one(found: Mapping[str, np.ndarray]) -> Arrays:
    by_name = {name.lower(): array for name, array in found.items()}
    values = next((by_name[name] for name in _FEATURES if name in by_name), None)
    if values is None:
        tables = [array for array in found.values() if array.ndim == 2]
        if len(tables) != 1:
            raise TableError(f"it has no array 'features' (it has {listed(list(found))}): call the features so")
        values = tables[0]
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        raise TableError(f"the features are {values.dtype} {list(values.shape)}: numbers [rows, columns] are expected")
    for name in (*_TIMES, *_MASKS, "intervals", "confidence"):
        if name in by_name and by_name[name].dtype.kind not in "fiub":
            wrong = by_name[name]
            raise TableError(f"{name} is {wrong.dtype} {list(wrong.shape)}: numbers are expected")
    time = next((np.ravel(by_name[name]) for name in _TIMES if name in by_name), None)
    if time is None and "intervals" in by_name:
        intervals = by_name["intervals"]
        if intervals.ndim != 2:
            raise TableError(f"intervals is {intervals.dtype} {list(intervals.shape)}: numbers [rows, 2] are expected")
        time = intervals.mean(axis=1)
    success = next((np.ravel(by_name[name]) for name in _MASKS if name in by_name), None)
    confidence = np.ravel(by_name["confidence"]) if "confidence" in by_name else None
    for name, array in (("time", time), ("mask", success), ("confidence", confidence)):
        if array is not None and len(array) != len(values):
            raise TableError(f"{name} has {len(array)} entries for {len(values)} rows of features")
    return Arrays([str(i + 1) for i in range(values.shape[1])], values, time, success, confidence)


def _loaded(path: pathlib.Path) -> np.ndarray:
    wrong = "it is no array of numbers: save it by numpy.save"
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TableError(wrong) from error
    if not isinstance(found, np.ndarray):
        raise TableError(wrong)
    return found


def _npz(path: pathlib.Path) -> Any:
    wrong = "it is no archive of arrays: save it by numpy.savez"
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise TableError(wrong)
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TableError(wrong) from error


def _member(file: Any, name: str) -> np.ndarray:
    try:
        return file[name]
    except ValueError as error:
        raise TableError(f"array {name!r} holds Python objects: save it as numbers") from error
    except (EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TableError(f"array {name!r} is damaged: copy the file again") from error


def _hdf5(path: pathlib.Path) -> Any:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: reading HDF5 needs h5py: pip install h5py.") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if not path.exists():
            raise
        raise TableError(f"it is no HDF5 file ({error}): copy it again") from error


def _root(file: Any) -> Any:
    """The group with the recordings: of a file that holds one group of groups named `data`, that one (CMU's `.csd`)."""
    only = next(iter(file)) if len(file) == 1 else ""
    return file[only]["data"] if only and hasattr(file[only], "keys") and "data" in file[only] else file


def _pyarrow(path: pathlib.Path) -> Any:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow.") from error
    return parquet


def parquet_columns(path: pathlib.Path) -> list[str]:
    """Names of the columns of a Parquet file.

    Raises:
      TableError: it is none.
      UserError: pyarrow is missing.
    """
    parquet = _pyarrow(path)
    try:
        return [name for name in parquet.ParquetFile(path).schema_arrow.names if not name.startswith("__index_level")]
    except (ValueError, OSError) as error:
        raise TableError(f"it is no Parquet file ({error}): write it again") from error


def _key(path: pathlib.Path, spec: TableSpec) -> str:
    names = parquet_columns(path)
    if spec.key:
        if spec.key not in names:
            raise TableError(f"it has no column {spec.key!r} (it has {listed(names)}): name one of them")
        return spec.key
    return next((name for name in names if name.strip().lower() in KEYS), "")


def _parquet_names(path: pathlib.Path, spec: TableSpec) -> list[str]:
    key = _key(path, spec)
    if not key:
        return [""]
    found: dict[str, None] = {}
    for batch in _pyarrow(path).ParquetFile(path).iter_batches(columns=[key]):
        found |= dict.fromkeys(str(value) for value in batch.column(0).unique().to_pylist())
    return list(found) if len(found) > 1 else [""]


def _parquet(path: pathlib.Path, part: Part, spec: TableSpec) -> Arrays:
    parquet = _pyarrow(path)
    columns = columns_of(parquet_columns(path), spec)
    names = list(columns.names)
    places = [p for p in (columns.time, columns.frame, columns.confidence, columns.success) if p is not None]
    wanted = list(dict.fromkeys([*columns.feature_names, *(names[p] for p in places)]))
    table = parquet.read_table(
        path, columns=wanted, filters=_of(part.member, _key(path, spec)) if part.member else None
    )

    def column(place: int | None) -> np.ndarray | None:
        return None if place is None else _numbers(table.column(names[place]), names[place])

    values = np.empty((table.num_rows, len(columns.features)), np.float32)
    for to, place in enumerate(columns.features):
        values[:, to] = _numbers(table.column(names[place]), names[place])
    time = column(columns.time)
    if time is None and (frames := column(columns.frame)) is not None:
        if not spec.rate:
            raise TableError(
                f"it has frame numbers and no times: give its frames per second, as in {spec.path}:rate=25"
            )
        time = frames / spec.rate
    return Arrays(columns.feature_names, values, time, column(columns.success), column(columns.confidence))


def _of(member: str, key: str) -> Any:
    """The rows of one recording, whose name may be a number."""
    import pyarrow
    from pyarrow import compute

    return compute.field(key).cast(pyarrow.string()) == member


def _numbers(column: Any, name: str) -> np.ndarray:
    try:
        return column.to_numpy().astype(np.float64)
    except (ValueError, TypeError) as error:
        raise TableError(f"column {name!r} holds text, no numbers; leave it out by cols=!{name}") from error
