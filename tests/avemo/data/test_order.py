"""The order of training examples is grain's, to the last place."""

import grain
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from avemo.data import order


@given(st.integers(1, 400) | st.sampled_from((32_768, 40_000, order.MOST)), st.integers(0, 2**32 - 1))
def test_an_epoch_is_grains(count: int, seed: int) -> None:
    theirs = grain.MapDataset.range(count).shuffle(seed=seed)
    places = range(count) if count <= 30 else (0, 1, count // 2, count - 1)
    mine = order.permutation(count, seed)
    assert [int(mine[i]) for i in places] == [theirs[i] for i in places]


@given(st.integers(1, order.MOST), st.integers(0, 2**32 - 1))
def test_an_epoch_holds_every_place_once(count: int, seed: int) -> None:
    np.testing.assert_array_equal(np.sort(order.permutation(count, seed)), np.arange(count))


def test_repeated_sliced_and_followed_by_random_maps_as_grains() -> None:
    for count in (5, order.MOST + 3):
        mine, theirs = (
            made.repeat().random_map(lambda place, rng: (place, int(rng.integers(1000)))).slice(slice(1, None, 3))
            for made in (order.shuffled(count, 7), grain.MapDataset.range(count).seed(7).shuffle())
        )
        assert [mine[i] for i in range(12)] == [theirs[i] for i in range(12)]
        assert [mine[2**40 + i] for i in range(3)] == [theirs[2**40 + i] for i in range(3)]
