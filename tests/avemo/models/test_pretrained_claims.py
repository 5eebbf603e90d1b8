"""Files of weights that claim more than they hold: refused in one line, before memory or time is spent."""

import io
import json
import pickle
import struct
import time
import tracemalloc
import zipfile

import pytest

from avemo.models.pretrained import tf_checkpoint, tfjs, torch_file
from benchmarks.parity import weight_files
from media.errors import UserError

FILES = weight_files.FOLDER


def refused(read, path, says=".", peak=50e6, seconds=10.0):
    """Reads a file that must be refused, within bounds of memory (bytes) and time."""
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=says) as error:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < peak
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < seconds
    assert "\n" not in str(error.value)


def torch_zip(path, pickled, **storages):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if "deflated" in storages else zipfile.ZIP_STORED) as archive:
        archive.writestr("a/data.pkl", pickled)
        for name, data in storages.items():
            archive.writestr(f"a/data/{name}", data)
    return path


def tensor(shape, strides, key=b"0", size=1):
    """The opcodes of one float tensor."""
    numbers = [b"(" + b"".join(b"J" + struct.pack("<i", n) for n in values) + b"t" for values in (shape, strides)]
    storage = b"(X\x07\0\0\0storageCTORCHX\x01\0\0\0" + key + b"X\x03\0\0\0cpuJ" + struct.pack("<i", size) + b"tQ"
    storage = storage.replace(b"CTORCH", b"ctorch\nFloatStorage\n")
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + b"".join(numbers) + b"\x89}tR"


def state(*tensors):
    items = b"".join(b"X\x04\0\0\0" + f"{i:04d}".encode() + t for i, t in enumerate(tensors))
    return b"\x80\x02}(" + items + b"u."


def test_a_tensor_of_stride_0_does_not_fill_the_memory(tmp_path):
    path = torch_zip(tmp_path / "a.pt", state(tensor((1 << 29,), (0,))), **{"0": bytes(4)})
    assert path.stat().st_size < 600
    refused(torch_file.read, path, "tensors of 2147483648 bytes in a file of")


def test_many_views_of_one_storage_do_not_fill_the_memory(tmp_path):
    views = [tensor((10_000,), (1,), size=10_000)] * 300
    refused(torch_file.read, torch_zip(tmp_path / "a.pt", state(*views), **{"0": bytes(40_000)}), "tensors of 12000000")


def test_names_that_are_nested_tuples_are_refused_at_once(tmp_path):
    nested = b"K\x01" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
    for key in (nested, b"c__builtin__\nobject\n"):
        refused(torch_file.read, torch_zip(tmp_path / "a.pt", b"\x80\x02}" + key + b"K\x01s."))


def test_a_memo_of_two_billion_places_is_not_made(tmp_path):
    pickled = b"\x80\x02}r" + struct.pack("<I", 0x7FFFFFFF) + b"."
    assert torch_file.read(torch_zip(tmp_path / "a.pt", pickled)) == {}
    refused(torch_file.read, torch_zip(tmp_path / "b.pt", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"."))


def test_a_compressed_storage_is_not_unpacked(tmp_path):
    path = torch_zip(tmp_path / "a.pt", state(tensor((4,), (1,))), **{"0": bytes(100 << 20), "deflated": b""})
    refused(torch_file.read, path, "longer than the archive")


def test_the_same_values_come_out_as_from_pickle(tmp_path):
    """Tuples, text, numbers and memos, as the standard library writes them."""
    from avemo.models.pretrained import torch_pickle

    value = {"a": (1, 2, 3, 4), "b": [True, None, -5, 1 << 40, 2.5], "c": {"ä": ("x", "x"), 7: ()}, "d": "y" * 300}
    for protocol in (2, 3, 4, 5):
        stream = io.BytesIO(pickle.dumps(value, protocol) + b"rest")
        assert torch_pickle.load(stream) == value
        assert stream.read() == b"rest"


def table(entries):
    """A LevelDB table of one block."""
    block = b"".join(entries) + struct.pack("<II", 0, 1)

    def varint(n):
        return bytes([n & 0x7F | 0x80, n >> 7 & 0x7F | 0x80, n >> 14 & 0x7F | 0x80, n >> 21])

    handle = varint(0) + varint(len(block))
    index = b"\0\1" + bytes([len(handle)]) + b"k" + handle + struct.pack("<II", 0, 1)
    footer = b"\0\0" + varint(len(block) + 1) + varint(len(index))
    return block + b"\0" + index + b"\0" + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def test_numbers_of_a_megabyte_in_a_checkpoint_are_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(table([b"\0\0" + b"\xff" * 3_000_000 + b"\x01"]))
    refused(tf_checkpoint.read, path, "more than 64 bits")


def test_names_that_repeat_a_long_beginning_are_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    first = b"\0\x80\x18\0" + b"n" * 3072  # then 3 bytes each for another 3,072
    path.write_bytes(table([first, *[b"\x80\x18\0\0"] * 200_000]))
    refused(tf_checkpoint.read, path, "longer than the file", peak=200e6)


@pytest.mark.parametrize(
    "manifest",
    [
        [{"paths": ["net.bin"] * 20_000, "weights": []}],
        [{"paths": ["net.bin"], "weights": [{"name": "a", "shape": [-1], "dtype": "float32"}]}],
        [{"paths": ["net.bin"], "weights": [{"name": "a", "shape": "x", "dtype": "float32"}]}],
        [{"paths": ["../net.bin"], "weights": []}],
        [{"weights": []}],
        [{"paths": 5}],
        [7],
    ],
)
def test_a_graph_model_of_another_form_is_refused(tmp_path, manifest):
    (tmp_path / "net.bin").write_bytes(bytes(1 << 20))
    (tmp_path / "net.json").write_text(json.dumps({"weightsManifest": manifest}))
    refused(tfjs.read, tmp_path / "net.json", "net.json: not a readable TensorFlow.js model")
