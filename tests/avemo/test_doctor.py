import os
import subprocess
import sys

import jax
import pytest

from avemo import doctor


@pytest.mark.portable
def test_a_broken_environment_is_named_with_its_remedy(tmp_path):
    ran = subprocess.run(
        [sys.executable, "launch.py", "doctor"],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cuda", "AVEMO_CACHE": "/proc/nowhere"},
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    lines = ran.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("BROKEN JAX"))
    assert "does not start with JAX_PLATFORMS=cuda" in lines[at]
    assert lines[at + 1].strip() == "-> unset JAX_PLATFORMS"
    assert any(line.startswith("look   cache folder") and "not writable" in line for line in lines)
    assert any(line.startswith("ok     decoders") and "h264" in line for line in lines)
    assert lines[-1].startswith("1 broken")
    assert not ran.stderr


@pytest.mark.slow
@pytest.mark.portable
def test_without_a_home_and_beside_the_plugin_of_another_jax(tmp_path):
    info = tmp_path / "jax_cuda12_plugin-0.4.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: jax-cuda12-plugin\nVersion: 0.4.1\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("XDG_") and k != "AVEMO_CACHE"}
    ran = subprocess.run(
        [sys.executable, "-m", "avemo.doctor"],
        capture_output=True,
        text=True,
        env={**environment, "HOME": "/proc/nowhere", "PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (1, "")
    lines = ran.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("BROKEN jax-cuda12-plugin     0.4.1"))
    assert f'JAX ignores it: pip install "jax[cuda12]=={jax.__version__}"' in lines[at + 1]
    at = next(number for number, line in enumerate(lines) if line.startswith("look   cache folder"))
    assert "/proc/nowhere/.cache/avemo, not writable" in lines[at]
    assert "set AVEMO_CACHE to a writable folder" in lines[at + 1]
    assert any(line.startswith("ok     JAX runs on") for line in lines)
    assert lines[-1].startswith("1 broken")


@pytest.mark.parametrize(("plugin", "broken"), [("0.10.2", False), ("0.7.2", True)])
def test_a_plugin_of_another_release_is_found(monkeypatch, plugin, broken):
    versions = {"jax": "0.10.2", "jaxlib": "0.10.2", "jax-cuda12-plugin": plugin}
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: versions.get(name) or _absent(name))
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "2 CPUs\n\n", ""))
    found = {finding.what: finding for finding in doctor.examine()}
    assert found["jax-cuda12-plugin"].broken == broken
    assert ('pip install "jax[cuda12]==0.10.2"' in found["jax-cuda12-plugin"].remedy) == broken
    assert found["packages missing"].broken
    assert found["JPEG decoder"].text == "OpenCV"
    assert "scores differ" in found["JPEG decoder"].remedy


def _absent(name):
    raise doctor.importlib.metadata.PackageNotFoundError(name)


def test_an_unused_accelerator_is_broken(monkeypatch):
    said = (
        "2 CPU cores as 1 device\nthis machine has an NVIDIA GPU that JAX cannot use, so everything runs on the CPU. "
        'Run: pip install "jax[cuda12]"\n'
    )
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, said, ""))
    finding = next(f for f in doctor.examine() if f.what == "accelerator")
    assert (finding.broken, finding.remedy) == (True, 'pip install "jax[cuda12]"')
