"""The table of Pythons and releases says what pytest counted."""

import pytest

from benchmarks import matrix


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["...", "27 passed in 629.33s (0:10:29)", "WARNING:absl:Grain needs jaxlib 448."], "27 passed"),
        (["FAILED tests/a.py::b", "===== 1 failed, 22 passed in 182.7s ====="], "1 failed, 22 passed"),
        (["1 error in 0.52s"], "1 error"),
        (["Fatal Python error: Aborted"], "Fatal Python error: Aborted"),
    ],
)
def test_the_count_is_found_wherever_it_stands(lines, said):
    assert matrix.summary(lines) == said
