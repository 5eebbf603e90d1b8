"""Small variants of the published networks."""

import pytest

from avemo.models.scaling import scale_width


@pytest.mark.parametrize(
    ("channels", "width", "scaled"),
    [(80, 1.0, 80), (80, 0.5, 40), (32, 0.25, 8), (32, 0.1, 8), (33, 0.5, 16), (38, 0.5, 24)],
)
def test_width_scales_to_multiples_of_eight_never_below_nine_tenths(channels, width, scaled):
    assert scale_width(channels, width) == scaled
