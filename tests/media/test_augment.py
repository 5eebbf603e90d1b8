import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media import augment
from media.errors import UserError

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def picture(height=48, width=48, seed=0):
    """Draws smooth colours, so that every operation changes something."""
    y, x = np.mgrid[0:height, 0:width]
    rng = np.random.default_rng(seed)
    waves = [np.sin(x / rng.uniform(2, 9) + y / rng.uniform(2, 9)) for _ in range(3)]
    return (110 + 70 * np.stack(waves, -1) + rng.normal(0, 6, (height, width, 3))).clip(0, 255).astype(np.uint8)


ONE = {
    "crop": lambda image, rng: augment.crop(image, rng, 0.5),
    "flip": augment.flip,
    "colour": lambda image, rng: augment.colour(image, rng, 0.5),
    "erase": lambda image, rng: augment.erase(image, rng, 1.0),
    "rand_augment": lambda image, rng: augment.rand_augment(image, rng, 2, 1.0),
    "face": lambda image, rng: augment.face(
        image, rng, {"crop": 0.5, "flip": True, "colour": 0.5, "operations": 3, "magnitude": 0.7, "erase": 1.0}, 24
    ),
}


@pytest.mark.parametrize("name", ONE)
def test_the_generator_decides_everything_and_the_picture_stays(name):
    image = picture()
    before = image.copy()
    results = [ONE[name](image, np.random.default_rng(seed)) for seed in range(12)]
    for seed, result in enumerate(results):
        np.testing.assert_array_equal(result, ONE[name](image, np.random.default_rng(seed)))
        assert result.dtype == np.uint8
    assert len({result.tobytes() for result in results}) > 1
    np.testing.assert_array_equal(image, before)


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(0, 2**32), st.integers(1, 32))
def test_any_picture_gets_the_requested_size(shape, seed, size):
    strength = {"crop": 0.9, "flip": True, "colour": 1.0, "operations": 4, "magnitude": 1.0, "erase": 1.0}
    out = augment.face(picture(*shape), np.random.default_rng(seed), strength, size)
    assert out.shape == (size, size, 3)
    assert out.dtype == np.uint8
    assert out.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("strength", [{}, {"crop": 0.0, "flip": False, "colour": 0.0, "operations": 0, "erase": 0.0}])
def test_no_strength_is_no_change(strength):
    image = picture()
    np.testing.assert_array_equal(augment.face(image, np.random.default_rng(0), strength, 48), image)
    windows = np.ones((2, 96, 64), np.float32)
    np.testing.assert_array_equal(augment.spec_augment(windows, np.random.default_rng(0), 0, 0), windows)
    for name in set(augment.OPERATIONS) - {"auto_contrast", "equalise"}:  # these have no strength
        np.testing.assert_array_equal(augment.OPERATIONS[name](image, 0.0), image)


@pytest.mark.parametrize("name", sorted(set(augment.OPERATIONS) - {"identity"}))
def test_every_operation_changes_the_picture_and_more_of_it_changes_more(name):
    image, operation = picture(), augment.OPERATIONS[name]
    little, much = (np.abs(operation(image, m).astype(int) - image).mean() for m in (0.2, 1.0))
    assert much > 0
    assert much > little or name in ("auto_contrast", "equalise")


def test_operations_do_what_their_names_say():
    image = picture()
    flipped = [augment.flip(image, np.random.default_rng(seed)) for seed in range(8)]
    assert any(np.array_equal(one, image[:, ::-1]) for one in flipped)
    ops = augment.OPERATIONS
    assert (ops["posterise"](image, 1.0) % 16 == 0).all()
    np.testing.assert_array_equal(ops["solarise"](image, 1.0), np.where(image > 0, 255 - image, image))
    stretched = ops["auto_contrast"](image, 1.0)
    assert (stretched.min((0, 1)) == 0).all()
    assert (stretched.max((0, 1)) == 255).all()
    grey = ops["saturation"](image, -1.0).astype(int)  # a tenth of the colour remains
    assert np.ptp(grey, -1).max() < 0.15 * 255
    np.testing.assert_array_equal(ops["translate_x"](image, 331 / 150 / 4)[:, 12:], image[:, :36])
    np.testing.assert_array_equal(ops["translate_y"](image, 331 / 150 / 4)[12:], image[:36])
    assert ops["sharpness"](image, 1.0).std() > image.std() > ops["sharpness"](image, -1.0).std()


def test_channels_keep_their_order():
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0], red[::4, ::4, 0] = 180, 90
    for name, operation in augment.OPERATIONS.items():
        if name not in ("solarise", "saturation", "equalise"):  # the first inverts colours, the second removes them
            assert operation(red, 0.5)[8:24, 8:24].mean((0, 1)).argmax() == 0, name
    for seed in range(10):
        strength = {"crop": 0.3, "flip": True, "colour": 0.3}
        out = augment.face(red, np.random.default_rng(seed), strength, 24)
        assert out.mean((0, 1)).argmax() == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(12, 60), st.integers(12, 60), st.integers(0, 2**32))
def test_an_erased_part_is_one_rectangle_of_the_papers_size(height, width, seed):
    image = np.zeros((height, width, 3), np.uint8)
    erased = augment.erase(image, np.random.default_rng(seed), 1.0).any(-1)
    rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
    if not len(rows):
        return  # no rectangle fitted
    h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
    low, high = augment.ERASED_AREA
    assert h * w <= high * height * width
    assert (h + 1) * (w + 1) >= low * height * width  # sides are rounded down
    assert erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_erasing_happens_as_often_as_requested():
    image = picture()
    changed = [augment.erase(image, np.random.default_rng(seed), 0.25) is not image for seed in range(400)]
    assert 0.18 < np.mean(changed) < 0.32


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), st.integers(0, 100), st.integers(0, 2**32))
def test_spec_augment_masks_one_band_and_one_stretch_per_window(time, freq, seed):
    windows = np.random.default_rng(seed).normal(size=(3, 96, 64)).astype(np.float32)
    windows[2] = 0  # no sound
    out = augment.spec_augment(windows, np.random.default_rng(seed), time, freq)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out[2], 0)
    for window, masked in zip(windows[:2], out[:2], strict=True):
        changed = masked != window
        assert np.all(masked[changed] == window.mean())
        if changed.all():  # the mask covers the whole window
            assert freq >= 64 or time >= 96
            continue
        rows, bands = np.flatnonzero(changed.all(1)), np.flatnonzero(changed.all(0))
        assert len(rows) <= min(time, 96)
        assert len(bands) <= min(freq, 64)
        for hit in (rows, bands):
            assert len(hit) == 0 or np.ptp(hit) + 1 == len(hit)
        outside = changed.copy()
        outside[rows], outside[:, bands] = False, False
        assert not outside.any()


def test_a_shift_moves_all_windows_of_a_clip_alike():
    windows = np.broadcast_to(np.arange(64, dtype=np.float32), (3, 96, 64))
    shifts = set()
    for seed in range(60):
        out = augment.shift_bands(windows, np.random.default_rng(seed), 2)
        np.testing.assert_array_equal(out, np.broadcast_to(out[0, 0], out.shape))
        shift = int(32 - out[0, 0, 32])
        np.testing.assert_array_equal(out[0, 0], np.clip(np.arange(64) - shift, 0, 63))
        shifts.add(shift)
    assert shifts == {-2, -1, 0, 1, 2}
    assert augment.shift_bands(windows, np.random.default_rng(0), 0) is windows


@pytest.mark.parametrize(
    ("field", "value"),
    [("crop", 1.0), ("erase", 1.5), ("colour", -0.1), ("operations", -1), ("spec_time", -2), ("spec_shift", -1)],
)
def test_a_strength_out_of_range_is_named(field, value):
    with pytest.raises(UserError, match=rf"data\.augment\.{field} is {value}: it must be"):
        augment.check({field: value})


def test_the_module_needs_no_jax():
    code = "import sys, media.augment; assert 'jax' not in sys.modules and 'grain' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
