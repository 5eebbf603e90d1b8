"""What decides where packed data lies."""

import pytest

from avemo.data import residency
from media.errors import UserError

GB = 2**30


@pytest.mark.parametrize(
    ("wanted", "nbytes", "device", "host", "mode"),
    [
        ("auto", 10 * GB, 80 * GB, 100 * GB, "device"),
        ("auto", 40 * GB, 80 * GB, 100 * GB, "device"),
        ("auto", 41 * GB, 80 * GB, 100 * GB, "host"),
        ("auto", 41 * GB, 80 * GB, 64 * GB, "off"),
        ("auto", GB, None, 8 * GB, "host"),
        ("auto", 5 * GB, None, 8 * GB, "off"),
        ("off", 1, 80 * GB, 8 * GB, "off"),
        ("host", 10 * GB, 80 * GB, 8 * GB, "host"),
        ("device", 10 * GB, None, 8 * GB, "device"),
        ("device", 10 * GB, 80 * GB, 8 * GB, "device"),
    ],
)
def test_data_lies_as_near_as_it_fits(wanted, nbytes, device, host, mode):
    found = residency.decide(wanted, nbytes, device, host)
    assert found.mode == mode
    assert "\n" not in found.reason
    if wanted != "off":
        assert f"{nbytes / GB:.2f} GiB" in found.reason


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match=r"data\.resident=device: 41\.00 GiB packed are more than 50%"):
        residency.decide("device", 41 * GB, 80 * GB, 100 * GB)
    with pytest.raises(UserError, match="did you mean 'device'"):
        residency.decide("devise", 1, None, GB)


def test_memory_is_read_from_the_machine():
    assert residency.host_memory() > 2**20
    assert residency.device_memory() is None  # the suite runs on CPU devices
