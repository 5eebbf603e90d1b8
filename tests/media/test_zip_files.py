import io
import zipfile

import numpy as np
import pytest

from media import zip_files


def npz(entries, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as out:
        for name, data in entries.items():
            out.writestr(name, data)
    return io.BytesIO(buffer.getvalue())


def npy(array, **header):
    file = io.BytesIO()
    np.save(file, array)
    data = file.getvalue()
    for old, new in header.items():
        data = data.replace(old.encode(), new.encode())
    return data


def test_what_numpy_writes_is_read():
    arrays = {
        "a/b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "text": np.array(["x", "yz"]),
        "none": np.zeros((0, 3)),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "scalar": np.asarray(3, np.int64),
        "yes": np.ones(2, bool),
    }
    for write in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        write(file, **arrays)
        found = zip_files.read_npz(file)
        assert set(found) == set(arrays)
        for name, value in arrays.items():
            np.testing.assert_array_equal(found[name], value, strict=True)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (npz({"a.npy": npy(np.zeros(4), **{"(4,)": "(4000000000000,)"})}), "bytes for an array"),
        (npz({"a.npy": npy(np.array([None]))}), "of object"),
        (npz({"a.npy": bytes(300 << 20)}, zipfile.ZIP_DEFLATED), "that unpack to"),
        (npz({str(i): b"" for i in range(90_000)}), "a directory of"),
        (io.BytesIO(b"PK"), "no directory"),
    ],
    ids=["shape", "pickle", "bomb", "directory", "no zip"],
)
def test_claims_are_checked_before_they_are_believed(file, says):
    with pytest.raises(zip_files.BROKEN, match=says):
        zip_files.read_npz(file)
