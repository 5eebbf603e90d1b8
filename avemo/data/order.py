"""grain's shuffled order, an epoch at a time.

grain draws the place of every example on its own: it enciphers a number of at least 16 bits again and again, until the
result lies within the data set. A set of 300 records takes 65,536 / 300 attempts for each example, 0.3 ms, and a set of
10 takes 7 ms: longer than a short training step. Here the cipher's whole table is followed at once, which takes some
milliseconds an epoch. The order is the same to the last place.
"""

import functools
from typing import Any

import grain
import numpy as np

_BITS = 8  # of each half of the cipher's block; grain has no smaller one
MOST = 1 << 2 * _BITS  # records that a block of this size can number
_ROUNDS = 4


def shuffled(count: int, seed: int) -> grain.MapDataset:
    """The places 0 … count − 1 in grain's order for `seed`, in a new order each epoch if it is repeated."""
    places = grain.MapDataset.range(count).seed(seed)
    # Of a larger set the block is at most four times as large as the set.
    return Shuffled(places) if 0 < count <= MOST else places.shuffle()


class Shuffled(grain.MapDataset[int]):
    """`MapDataset.shuffle` of a range of at most `MOST` places. It takes the same place in a pipeline, so it leads to
    the same seeds in what follows."""

    def __init__(self, parent: grain.MapDataset):
        super().__init__(parent)
        self._first = int(self._default_seed)

    def __len__(self) -> int:
        return len(self._parent)

    def __str__(self) -> str:
        return "Shuffled"

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        epoch, place = divmod(index, len(self))
        return int(permutation(len(self), (self._first + epoch) % 2**32)[place])


@functools.lru_cache(maxsize=64)  # seeds that train together each have an epoch
def permutation(count: int, seed: int) -> np.ndarray:
    """Where grain's `index_shuffle` puts each of `count` places, int32 `[count]`, for `count` ≤ `MOST`.

    It is a cycle-walking Simon cipher (Beaulieu et al., https://eprint.iacr.org/2013/404) of four rounds.
    """
    if count == 1:
        return np.zeros(1, np.int32)
    value = np.arange(MOST, dtype=np.uint32)
    left, right = value >> _BITS, value & _mask(_BITS)
    keys = _round_keys(seed) & _mask(_BITS)
    for first, second in keys.reshape(-1, 2):
        left = left ^ _mix(right) ^ first
        right = right ^ _mix(left) ^ second
    after = (left << _BITS | right).astype(np.int32)
    # Walk on from results outside the set. Each pass doubles the length of the step outside.
    start, outside = after[:count], after
    while (start >= count).any():
        start = np.where(start >= count, outside[start], start)
        outside = np.where(outside >= count, outside[outside], outside)
    return start


def _mask(bits: int) -> np.uint32:
    return np.uint32((1 << bits) - 1)


def _rotate(half: np.ndarray, by: int) -> np.ndarray:
    return (half << by | half >> (_BITS - by)) & _mask(_BITS)


def _mix(half: np.ndarray) -> np.ndarray:
    return (_rotate(half, 1) & _rotate(half, 8)) ^ _rotate(half, 2)


def _round_keys(seed: int) -> np.ndarray:
    """The keys of the rounds, uint32: `std::seed_seq{seed}.generate` of the C++ standard, [rand.util.seedseq]."""
    n, p, q, word = _ROUNDS, 1, 2, 2**32  # p and q as the standard has them for four numbers
    keys = [0x8B8B8B8B] * n
    for k in range(2 * n):
        here, ahead, further, before = k % n, (k + p) % n, (k + q) % n, (k - 1) % n
        if k < n:
            first = 1664525 * _fold(keys[here] ^ keys[ahead] ^ keys[before]) % word
            second = (first + (1, 1 + seed, 2, 3)[k]) % word
            keys[ahead] = (keys[ahead] + first) % word
            keys[further] = (keys[further] + second) % word
        else:
            first = 1566083941 * _fold((keys[here] + keys[ahead] + keys[before]) % word) % word
            second = (first - here) % word
            keys[ahead] ^= first
            keys[further] ^= second
        keys[here] = second
    return np.array(keys, np.uint32)


def _fold(value: int) -> int:
    return value ^ value >> 27
