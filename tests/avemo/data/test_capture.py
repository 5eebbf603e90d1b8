"""Faces and voices as detectors, cameras, rooms and microphones vary them: bounds, invariances, one key per example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avemo.data import augment, capture, sound_capture


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def faces(count=6, side=24):
    rng = np.random.default_rng(1)
    smooth = np.cumsum(rng.normal(0, 9, (count, side, side, 1)), 2) + 128
    return np.broadcast_to(smooth.clip(0, 255), (count, side, side, 3)).astype(np.uint8)


def test_a_frame_without_zoom_and_blur_is_the_picture():
    images = faces()
    np.testing.assert_array_equal(capture.framed(images, keys(6), 0.0, 0.0, 24), images)


def test_zoom_moves_and_blur_softens_within_the_values_that_were_there():
    images = faces()
    zoomed = np.asarray(capture.framed(images, keys(6), 0.5, 0.0, 24)).astype(int)
    blurred = np.asarray(capture.framed(images, keys(6, 3), 0.0, 1.0, 24)).astype(int)
    assert np.abs(zoomed - images).mean() > 5
    assert zoomed.min() >= images.min() and zoomed.max() <= images.max()  # noqa: PT018 - one bound
    rough = lambda x: np.abs(np.diff(x.astype(int), axis=2)).mean((1, 2, 3))  # noqa: E731
    assert (rough(blurred) <= rough(images) + 0.1).all()
    assert (rough(blurred) < 0.7 * rough(images)).any()


def test_light_keeps_order_at_one_place_and_noise_is_grey():
    flat = np.broadcast_to(np.arange(0, 250, 10, dtype=np.uint8)[:, None, None, None], (25, 8, 8, 3))
    one = jnp.broadcast_to(keys(1), (25,))
    lit = np.asarray(capture.lit(flat, one, 0.8)).astype(int)
    assert (np.diff(lit, axis=0) >= 0).all()
    noisy = np.asarray(capture.noisy(faces(), keys(6), 1.0)).astype(int)
    np.testing.assert_array_equal(noisy[..., 0], noisy[..., 1])
    assert 1 < np.abs(noisy - faces()).mean() < 48


@pytest.mark.parametrize("strength", [{"zoom": 0.3}, {"blur": 0.5, "light": 0.5, "noise": 0.3}])
def test_a_face_is_varied_alike_in_any_batch(strength):
    images, own = faces(), keys(6)
    whole = np.asarray(augment.faces(images, own, strength, 24))
    part = np.asarray(augment.faces(images[2:5], own[2:5], strength, 24))
    assert np.abs(whole[2:5].astype(int) - part.astype(int)).max() <= 1  # rounding of a sum in another order


def log_mel(level=1.0):
    rng = np.random.default_rng(2)
    mel = level * np.abs(rng.normal(size=(3, 2, 96, 64))).astype(np.float32)
    return np.log(mel + 0.01)


@pytest.mark.parametrize("name", sound_capture.NAMES)
def test_a_voice_changes_and_silence_does_not(name):
    clips = log_mel()
    clips[0, 1] = 0
    varied = np.asarray(sound_capture.varied(clips, keys(3), {name: 1.0}))
    assert np.isfinite(varied).all()
    assert np.abs(varied - clips).max() > 0.1
    assert (varied[0, 1] == 0).all()
    np.testing.assert_allclose(sound_capture.varied(clips, keys(3), {}), clips, atol=2e-3)
    alone = np.asarray(sound_capture.varied(clips[1:2], keys(3)[1:2], {name: 1.0}))
    np.testing.assert_allclose(alone[0], varied[1], atol=1e-4)


def test_a_room_only_adds_and_later_rows_do_not_reach_earlier_ones():
    clips = log_mel(0.0)
    clips[:, :, 40] = 2.0
    heard = np.asarray(sound_capture.varied(clips, keys(3), {"room": 1.0}))
    assert (heard[:, :, 41:60] > clips[:, :, 41:60] + 1e-3).any()
    np.testing.assert_allclose(heard[:, :, :40], clips[:, :, :40], atol=1e-4)
