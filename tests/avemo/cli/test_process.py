"""What is set for the process before JAX starts."""

import os
import subprocess
import sys

import pytest

from avemo.cli import process
from media.errors import UserError


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "--xla_cpu_prefer_vector_width=512"),
        ("--xla_dump_to=x", "--xla_dump_to=x --xla_cpu_prefer_vector_width=512"),
        ("--xla_cpu_prefer_vector_width=256", "--xla_cpu_prefer_vector_width=256"),
    ],
)
def test_wide_vectors_are_asked_for_unless_the_user_says_otherwise(monkeypatch, before, after):
    monkeypatch.setenv("XLA_FLAGS", before)
    process.prefer_wide_vectors()
    process.prefer_wide_vectors()
    assert os.environ["XLA_FLAGS"] == after


def test_host_devices_are_made_of_the_cores():
    code = "from avemo.cli import process; process.start(3); import jax; print(jax.local_device_count())"
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3"]


@pytest.mark.parametrize(
    "error", [RuntimeError("Unable to initialize backend 'tpu':\nINTERNAL: no libtpu.so"), AssertionError()]
)
def test_a_platform_that_is_not_there_is_one_line(error, monkeypatch):
    def missing():
        raise error

    monkeypatch.setattr(process.jax, "devices", missing)
    with pytest.raises(UserError) as said:
        process.check_platforms()
    assert str(said.value).startswith(f"JAX_PLATFORMS={process.jax.config.jax_platforms} names a platform")
    assert "\n" not in str(said.value)
