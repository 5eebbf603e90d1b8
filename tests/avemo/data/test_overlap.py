"""Overlapping windows over a long recording."""

import numpy as np
import pytest

from avemo.data import overlap
from media.errors import UserError


@pytest.mark.parametrize(("frames", "length", "hop"), [(50, 20, 10), (47, 20, 7), (21, 20, 20), (8, 20, 5), (9, 0, 0)])
def test_windows_cover_a_recording_and_sum_to_it(frames, length, hop):
    starts = overlap.starts(frames, length, hop)
    size = max(length or frames, frames if len(starts) == 1 else 0)
    whole = np.random.default_rng(0).normal(size=(frames, 2)).astype(np.float32)
    padded = np.pad(whole, [(0, size), (0, 0)])
    pieces = [{"traces": padded[start : start + size]} for start in starts]
    np.testing.assert_allclose(overlap.add(pieces, starts)["traces"][:frames], whole, atol=1e-6)
    assert starts == sorted(set(starts))
    assert len(starts) == 1 or starts[-1] + length == frames


def test_a_window_counts_most_in_its_middle():
    starts = overlap.starts(6, 4, 2)
    joined = overlap.add([{"x": np.zeros((4, 1), np.float32)}, {"x": np.ones((4, 1), np.float32)}], starts)["x"][:, 0]
    np.testing.assert_allclose(joined, [0, 0, 1 / 3, 2 / 3, 1, 1], atol=1e-6)


def test_a_hop_above_the_length_is_refused():
    with pytest.raises(UserError, match="leaves frames out"):
        overlap.starts(100, 20, 21)
