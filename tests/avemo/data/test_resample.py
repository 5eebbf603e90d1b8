"""Resampling by triangles, exact in float32."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from avemo.data.resample import resample


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def stated(image, size, side, corner, blur, repeat):
    """The same in float64, a pixel at a time."""
    out = image.astype(np.float64)
    for axis, length in enumerate(image.shape[:2]):
        rows = []
        for i in range(size):
            centre = (i + 0.5) / size * side[axis] + corner[axis] - 0.5
            centre = np.clip(centre, 0, length - 1) if repeat else centre
            reach = max(1, side[axis] / size) + blur * length
            weight = np.maximum(0, 1 - np.abs(centre - np.arange(length)) / reach)
            rows.append(np.tensordot(weight / weight.sum(), np.moveaxis(out, axis, 0), 1))
        out = np.moveaxis(np.stack(rows), 0, axis)
    return out


places = st.integers(-64, 64 * 8).map(lambda n: n / 64)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    st.integers(1, 24),
    st.tuples(st.integers(8, 40), st.integers(8, 40)),
    st.tuples(places, places),
    st.integers(0, 16),
    st.booleans(),
)
def test_pixels_are_means_under_a_triangle(size, shape, corner, blur, repeat):
    side = tuple(0.75 * n for n in shape)
    if not repeat:  # a part of the picture
        corner = tuple(np.clip(c, 0, n / 4) for c, n in zip(corner, shape, strict=True))
    image, blur = picture(*shape), blur / 64 / 8
    blur = blur if shape[0] == shape[1] else 0.0  # whole 64ths of a pixel on both axes
    found = jax.jit(functools.partial(resample, size=size, repeat=repeat))(
        image, side=jnp.array(side, jnp.float32), corner=jnp.array(corner, jnp.float32), blur=jnp.float32(blur)
    )
    side, corner = ([round(64 * v) / 64 for v in pair] for pair in (side, corner))
    blur = round(64 * blur * shape[0]) / 64 / shape[0]
    np.testing.assert_allclose(found, stated(image, size, side, corner, blur, repeat), atol=0.25)


def test_no_change_of_size_is_no_change():
    image = picture(31, 45)[:, :31]
    found = resample(image, 31, jnp.array([31.0, 31.0]), jnp.zeros(2))
    np.testing.assert_array_equal(found, image)


def test_every_program_gives_the_same_bits():
    """Of one picture at a time and of many."""
    images = np.stack([picture(80, 72, seed) for seed in range(16)])
    key = jax.random.key(0)
    side = 40 + 30 * jax.random.uniform(key, (16, 2))
    corner = 8 * jax.random.uniform(jax.random.fold_in(key, 1), (16, 2))
    one = functools.partial(resample, size=75, blur=0.02)
    many = jax.jit(jax.vmap(lambda image, s, c: one(image, side=s, corner=c)))(images, side, corner)
    for image, s, c, out in zip(images, side, corner, many, strict=True):
        np.testing.assert_array_equal(jax.jit(one)(image, side=s, corner=c), out)
    # The weights and the values between the passes are as exact as said: float64 finds nothing that float32 lost.
    scaled = np.asarray(many, np.float64) * 2**16
    np.testing.assert_array_equal(scaled, np.round(scaled))
