"""Resampling by triangles, exact in float32."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from avemo.data import resample
from avemo.data.resample import PLACES


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def stated(image, size, side, corner, blur, repeat):
    """The same in float64, a pixel at a time."""
    out = image.astype(np.float64)
    for axis, length in enumerate(image.shape[:2]):
        rows = []
        for i in range(size):
            centre = ((i + 0.5) / size * side[axis] + corner[axis]) / PLACES - 0.5
            centre = np.clip(centre, 0, length - 1) if repeat else centre
            reach = max(1, side[axis] / PLACES / size) + blur[axis] / PLACES
            weight = np.maximum(0, 1 - np.abs(centre - np.arange(length)) / reach)
            rows.append(np.tensordot(weight / weight.sum(), np.moveaxis(out, axis, 0), 1))
        out = np.moveaxis(np.stack(rows), 0, axis)
    return out


@functools.partial(jax.jit, static_argnames=("size", "repeat"))
def resampled(image, size, side, corner, blur, repeat):
    return resample.resample(image, size, side, corner, blur, repeat)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    st.integers(1, 24),
    st.tuples(st.integers(8, 40), st.integers(8, 40)),
    st.tuples(st.integers(-PLACES, 8 * PLACES), st.integers(-PLACES, 8 * PLACES)),
    st.tuples(st.integers(0, 5 * PLACES), st.integers(0, 5 * PLACES)),
    st.booleans(),
)
def test_pixels_are_means_under_a_triangle(size, shape, corner, blur, repeat):
    side = [PLACES * n * 3 // 4 for n in shape]
    if not repeat:
        corner = [int(np.clip(c, 0, PLACES * n // 4)) for c, n in zip(corner, shape, strict=True)]
    image = picture(*shape)
    found = resampled(image, size, *(np.asarray(x, np.int32) for x in (side, corner, blur)), repeat)
    np.testing.assert_allclose(found, stated(image, size, side, corner, blur, repeat), atol=0.3)


def test_wide_triangles_over_large_pictures_do_not_overflow():
    for length, size in ((1100, 900), (4096, 160)):
        blur = length // 8
        found = resample._weights(length, size, PLACES * length, 0, PLACES * blur, False, 14)
        centre = (np.arange(size) + 0.5) / size * length - 0.5
        triangle = np.maximum(0, max(1, length / size) + blur - np.abs(centre[:, None] - np.arange(length)[None]))
        np.testing.assert_allclose(found, triangle / triangle.sum(1, keepdims=True), atol=2e-4)


def test_no_change_of_size_is_no_change():
    image = picture(31, 31)
    found = resampled(image, 31, np.full(2, 31 * PLACES, np.int32), *[np.zeros(2, np.int32)] * 2, False)
    np.testing.assert_array_equal(found, image)


def test_sums_are_exact():
    """Float64 gives the same bits, and so does any order of sums."""
    image = picture(80, 72)
    side, corner, blur = (np.array(x, np.int32) for x in ([3000, 2900], [77, 500], [200, 31]))
    found = np.asarray(resampled(image, 75, side, corner, blur, False))
    rows, columns = (
        np.asarray(resample._weights(n, 75, side[axis], corner[axis], blur[axis], False, bits), np.float64)
        for axis, (n, bits) in enumerate(((80, 14), (72, 11)))
    )
    assert (rows.sum(1) == 1).all()
    assert (columns.sum(1) == 1).all()
    assert min(rows.min(), columns.min()) >= 0
    between = np.round(np.einsum("oh,hwc->owc", rows, image.astype(np.float64)) * 32) / 32
    np.testing.assert_array_equal(found, np.einsum("owc,pw->opc", between, columns))
    turned = resampled(image[::-1].copy(), 75, side, jnp.array([80 * 64 - 3000 - 77, 500]), blur, False)
    assert np.abs(np.asarray(turned)[::-1] - found).max() < 0.2  # sums are rounded from the other end
