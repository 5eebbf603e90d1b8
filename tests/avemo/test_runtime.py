"""What is set for the process before JAX starts."""

import pytest

from avemo import runtime


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
    runtime.prefer_wide_vectors()
    runtime.prefer_wide_vectors()
    assert runtime.os.environ["XLA_FLAGS"] == after
