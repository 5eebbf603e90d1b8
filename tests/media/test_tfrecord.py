"""TFRecord framing, byte for byte as TensorFlow writes it."""

import struct

import pytest

from media import tfrecord


def test_the_checksum_is_the_published_one():
    # CRC-32C of "123456789" is 0xE3069283 (RFC 3720); masked as in TensorFlow's crc32c.h.
    crc = 0xE3069283
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    assert tfrecord.masked_crc(b"123456789") == struct.pack("<I", masked)


def test_records_come_back_and_an_empty_one_too(tmp_path):
    path = tmp_path / "a.tfrecord"
    records = [b"first", b"", bytes(range(256)) * 100]
    tfrecord.write(path, enumerate(records))
    assert list(tfrecord.read(path)) == records
    assert path.stat().st_size == sum(16 + len(record) for record in records)


@pytest.mark.parametrize("position", [0, 9, 13, 20])
def test_a_changed_byte_is_noticed(tmp_path, position):
    path = tmp_path / "a.tfrecord"
    tfrecord.write(path, [(0, b"some data")])
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="record 0"):
        list(tfrecord.read(path))


def test_a_file_cut_short_is_noticed(tmp_path):
    path = tmp_path / "a.tfrecord"
    tfrecord.write(path, [(0, b"some data"), (1, b"more data")])
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="record 1"):
        list(tfrecord.read(path))
