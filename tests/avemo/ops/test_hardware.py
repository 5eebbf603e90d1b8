"""What a command says about the machine that it runs on."""

import sys

import jax
import pytest

from avemo.ops import hardware

DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (root@host)\n"
PLAIN: dict[str, str] = {}


@pytest.fixture(autouse=True)
def no_nvidia_smi(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)


def install(extra):
    return f'{sys.executable} -m pip install "jax[{extra}]=={jax.__version__}"'


def test_the_summary_is_one_line_with_kind_count_memory_and_version():
    line = hardware.summary()
    assert line.startswith("CPU, ")
    assert "8 devices, " in line
    assert " GiB; " in line
    assert line.endswith(f"jax {jax.__version__}")
    assert "\n" not in line


@pytest.mark.parametrize(("driver", "extra"), [("580.159.03", "cuda13"), ("535.104.05", "cuda12"), ("?", "cuda12")])
def test_a_gpu_that_jax_cannot_use_comes_with_the_install_line(tmp_path, driver, extra):
    version = tmp_path / "proc" / "driver" / "nvidia" / "version"
    version.parent.mkdir(parents=True)
    version.write_text(DRIVER.format(driver))
    assert hardware.unused(tmp_path, PLAIN) == (
        f"this machine has an NVIDIA GPU that JAX cannot use, so everything runs on the CPU. Run: {install(extra)}"
    )


@pytest.mark.parametrize(
    ("prints", "status", "extra"),
    [("580.65.06\\n580.65.06\\n", 0, "cuda13"), ("550.54\\n", 0, "cuda12"), ("No devices were found\\n", 6, None)],
)
def test_in_a_container_nvidia_smi_is_asked(tmp_path, monkeypatch, prints, status, extra):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{prints}'\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(program))
    found = hardware.unused(tmp_path, PLAIN)
    assert found is None if extra is None else install(extra) in found


def test_a_plugin_that_is_installed_but_did_not_start_is_named(tmp_path, monkeypatch):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    monkeypatch.setattr("importlib.metadata.version", lambda package: "0.9.1")
    assert "although jax-cuda12-plugin 0.9.1 is installed" in hardware.unused(tmp_path, PLAIN)


def test_a_tpu_is_told_from_other_cards_of_its_maker(tmp_path):
    card = tmp_path / "sys" / "bus" / "pci" / "devices" / "0000:00:05.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x1ae0\n")
    (card / "class").write_text("0x020000\n")  # a network card
    assert hardware.unused(tmp_path, PLAIN) is None
    (card / "class").write_text("0x120000\n")
    assert install("tpu") in hardware.unused(tmp_path, PLAIN)


def test_a_tpu_is_known_by_its_environment(tmp_path):
    assert install("tpu") in hardware.unused(tmp_path, {"TPU_ACCELERATOR_TYPE": "v5litepod-8"})


def test_nothing_is_said_where_nothing_is_missed(tmp_path):
    assert hardware.unused(tmp_path, PLAIN) is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    assert install("cuda12") in hardware.unused(tmp_path, PLAIN)
    assert hardware.unused(tmp_path, {"JAX_PLATFORMS": "cpu"}) is None  # asked for
    assert hardware.unused(tmp_path, {"CUDA_VISIBLE_DEVICES": ""}) is None


@pytest.mark.parametrize(
    ("kind", "dtype", "teraflops"),
    [
        ("NVIDIA H200", "bfloat16", 989),
        ("NVIDIA H100 80GB HBM3", "float32", 495),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA A100-SXM4-80GB", "float32", 156),
        ("NVIDIA L40S", "bfloat16", 362),
        ("TPU v5 lite", "bfloat16", 197),
        ("TPU v5", "float32", 459),
    ],
)
def test_peaks_are_found_by_the_name_that_jax_gives(kind, dtype, teraflops):
    assert hardware.peak_flops(kind, dtype) == teraflops * 1e12


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA A1000", "NVIDIA L400", "TPU v50"])
def test_an_unknown_kind_has_no_peak(kind):
    assert hardware.peak_flops(kind, "bfloat16") is None


def test_a_cpu_does_not_tell_its_peak_memory():
    assert hardware.peak_memory() is None
