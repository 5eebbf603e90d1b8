"""What a command says about the machine that it runs on."""

import jax
import pytest

from avemo.ops import hardware

DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (root@host)\n"


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "")


def test_the_summary_is_one_line_with_devices_and_version():
    line = hardware.summary()
    assert "8 devices" in line
    assert jax.__version__ in line
    assert "\n" not in line


@pytest.mark.parametrize(("driver", "extra"), [("580.159.03", "cuda13"), ("535.104.05", "cuda12"), ("?", "cuda12")])
def test_a_gpu_that_jax_cannot_use_comes_with_the_install_line(plain, tmp_path, driver, extra):
    version = tmp_path / "proc" / "driver" / "nvidia" / "version"
    version.parent.mkdir(parents=True)
    version.write_text(DRIVER.format(driver))
    assert hardware.unused(tmp_path) == (
        f'this machine has an NVIDIA GPU that JAX cannot use: pip install "jax[{extra}]=={jax.__version__}"'
    )


def test_a_tpu_is_told_from_other_cards_of_its_maker(plain, tmp_path):
    card = tmp_path / "sys" / "bus" / "pci" / "devices" / "0000:00:05.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x1ae0\n")
    (card / "class").write_text("0x020000\n")  # a network card
    assert hardware.unused(tmp_path) is None
    (card / "class").write_text("0x120000\n")
    assert "jax[tpu]" in hardware.unused(tmp_path)


def test_nothing_is_said_where_nothing_is_missed(plain, tmp_path, monkeypatch):
    assert hardware.unused(tmp_path) is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    assert "cuda12" in hardware.unused(tmp_path)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # asked for
    assert hardware.unused(tmp_path) is None
