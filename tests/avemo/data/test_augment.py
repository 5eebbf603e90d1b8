"""Device augmentation against OpenCV and slow NumPy statements; its distributions; its independence of the batch."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avemo.data import augment, rand_augment
from media.errors import UserError

EVERYTHING = {"crop": 0.5, "flip": True, "colour": 0.5, "operations": 2, "magnitude": 0.7, "erase": 0.5}


def picture(height=48, width=48, seed=0):
    """Smooth colours with noise, so that every operation has something to change."""
    y, x = np.mgrid[0:height, 0:width]
    rng = np.random.default_rng(seed)
    waves = [np.sin(x / rng.uniform(2, 9) + y / rng.uniform(2, 9)) for _ in range(3)]
    return (110 + 70 * np.stack(waves, -1) + rng.normal(0, 6, (height, width, 3))).clip(0, 255).astype(np.uint8)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def table(image, values):
    return cv2.LUT(image, np.clip(values, 0, 255).astype(np.uint8))


def affine(image, matrix):
    """A 2 x 3 matrix about the centre, as OpenCV applies it."""
    height, width = image.shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = np.asarray(matrix, np.float64)
    matrix[:, 2] += centre - matrix[:, :2] @ centre
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_CONSTANT, borderValue=(128, 128, 128))


def rotated(image, degrees):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return affine(image, [[cos, sin, 0], [-sin, cos, 0]])


def contrast(image, factor):
    mean = round(float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean()))
    return table(image, mean + factor * (np.arange(256) - mean))


def saturation(image, factor):
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, grey, 1 - factor, 0)


def sharpness(image, factor):
    kernel = np.float32([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    return cv2.addWeighted(
        image, factor, cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE), 1 - factor, 0
    )


def auto_contrast(image):
    out = image.copy()
    for channel in range(3):
        low, high = int(image[..., channel].min()), int(image[..., channel].max())
        if high > low:
            out[..., channel] = (image[..., channel].astype(np.float32) - low) * 255 / (high - low)
    return out


STATEMENTS = {
    "identity": lambda image, m: image,
    "auto_contrast": lambda image, m: auto_contrast(image),
    "equalise": lambda image, m: cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(image)]),
    "rotate": lambda image, m: rotated(image, 30 * m),
    "solarise": lambda image, m: np.where(image > 255 * (1 - abs(m)), 255 - image, image),
    "saturation": lambda image, m: saturation(image, 1 + 0.9 * m),
    "posterise": lambda image, m: image >> round(4 * abs(m)) << round(4 * abs(m)),
    "contrast": lambda image, m: contrast(image, 1 + 0.9 * m),
    "brightness": lambda image, m: table(image, np.arange(256) * (1 + 0.9 * m)),
    "sharpness": lambda image, m: sharpness(image, 1 + 0.9 * m),
    "shear_x": lambda image, m: affine(image, [[1, 0.3 * m, 0], [0, 1, 0]]),
    "shear_y": lambda image, m: affine(image, [[1, 0, 0], [0.3 * m, 1, 0]]),
    "translate_x": lambda image, m: affine(image, [[1, 0, 150 / 331 * m * image.shape[1]], [0, 1, 0]]),
    "translate_y": lambda image, m: affine(image, [[1, 0, 0], [0, 1, 150 / 331 * m * image.shape[0]]]),
}
# OpenCV interpolates on a grid of 1/32 pixel, and its blends round halves in either direction.
TOLERANCE = dict.fromkeys(("rotate", "shear_x", "shear_y", "translate_x", "translate_y"), 2) | {
    "saturation": 1,
    "sharpness": 1,
}


def test_every_operation_is_stated():
    assert set(STATEMENTS) == set(rand_augment.OPERATIONS)


@pytest.mark.parametrize("shape", [(48, 48), (33, 41)])
@pytest.mark.parametrize("m", [1.0, 0.45, -0.7, 0.0])
def test_operations_are_what_they_say(m, shape):
    images = np.stack([picture(*shape, seed) for seed in range(len(STATEMENTS))])
    which = jnp.arange(len(STATEMENTS))
    out = np.asarray(jax.jit(rand_augment.operate)(images, which, jnp.full(len(STATEMENTS), m, jnp.float32)))
    for name, image, found in zip(rand_augment.OPERATIONS, images, out, strict=True):
        wanted = STATEMENTS[name](image, m)
        off = np.abs(found.astype(int) - wanted.astype(int))
        assert off.max() <= TOLERANCE.get(name, 0), name
        assert off.mean() < 0.2, name


def test_accelerators_which_run_all_kinds_at_once_get_the_same_pictures():
    images = jnp.asarray(np.stack([picture(20, 24, seed) for seed in range(28)]))
    which = jnp.arange(28) % len(STATEMENTS)
    m = jnp.where(jnp.arange(28) < 14, 0.8, -0.4)
    one_by_one, at_once = (
        np.asarray(jax.jit(run)(images, which, m)) for run in (rand_augment.one_by_one, rand_augment.all_at_once)
    )
    np.testing.assert_array_equal(one_by_one, at_once)
    pixels = images.reshape(28, -1, 3)
    np.testing.assert_array_equal(rand_augment.counted_by_products(pixels), rand_augment.counted_one_by_one(pixels))


@pytest.mark.parametrize("flat", [0, 7, 255])
def test_pictures_of_one_colour_survive_every_operation(flat):
    images = np.full((len(STATEMENTS), 16, 16, 3), flat, np.uint8)
    out = np.asarray(
        rand_augment.operate(images, jnp.arange(len(STATEMENTS)), jnp.full(len(STATEMENTS), 0.5, jnp.float32))
    )
    for name, found in zip(rand_augment.OPERATIONS, out, strict=True):
        np.testing.assert_allclose(found, STATEMENTS[name](images[0], 0.5), atol=TOLERANCE.get(name, 0), err_msg=name)


def test_a_crop_is_a_part_of_the_picture_at_the_asked_size():
    """On a picture whose colours are its own coordinates, what is seen tells where and how large the part is."""
    y, x = np.mgrid[0:120, 0:120].astype(np.uint8)
    count, strength = 2000, 0.4
    images = np.broadcast_to(np.stack([x, y, np.zeros_like(x)], -1), (count, 120, 120, 3))
    out = np.asarray(jax.jit(lambda i, k: augment.crop(i, k, strength, 24))(images, keys(count))).astype(float)
    step_x, step_y = ((out[..., c].max((1, 2)) - out[..., c].min((1, 2))) / 23 for c in (0, 1))
    side = step_x * 24 / 120  # share of the side
    np.testing.assert_allclose(step_x, step_y, atol=0.15)
    assert side.min() > 1 - strength - 0.02
    assert side.max() < 1 + 0.02
    deciles = np.quantile(side, np.linspace(0.1, 0.9, 9))
    np.testing.assert_allclose(deciles, 1 - strength + strength * np.linspace(0.1, 0.9, 9), atol=0.03)  # uniform
    left = out[:, 0, 0, 0] - step_x / 2 + 0.5
    free = 120 * (1 - side)
    place = left[free > 15] / free[free > 15]
    np.testing.assert_allclose(np.quantile(place, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.06)


def test_without_a_crop_pictures_are_resized_as_opencv_does():
    images = np.stack([picture(seed=seed) for seed in range(3)])
    same = augment.crop(images, keys(3), 0.0, 48)
    np.testing.assert_array_equal(same, images)
    larger = np.asarray(augment.crop(images, keys(3), 0.0, 96))
    for image, found in zip(images, larger, strict=True):
        wanted = cv2.resize(image, (96, 96), interpolation=cv2.INTER_LINEAR)
        assert np.abs(found.astype(int) - wanted).max() <= 1
    smaller = np.asarray(augment.crop(np.full((2, 48, 48, 3), 77, np.uint8), keys(2), 0.0, 20))
    assert (smaller == 77).all()


def test_a_crop_is_the_same_compiled_and_operation_by_operation():
    images, drawn = np.stack([picture(60, 48, seed) for seed in range(3)]), keys(3)
    with jax.disable_jit():
        by_operation = augment.crop(images, drawn, 0.3, 52)
    np.testing.assert_array_equal(jax.jit(augment.crop, static_argnums=(2, 3))(images, drawn, 0.3, 52), by_operation)


def test_half_of_the_pictures_are_mirrored():
    image = picture()
    images = np.broadcast_to(image, (2000, *image.shape))
    out = np.asarray(augment.flip(images, keys(2000)))
    mirrored = np.array([np.array_equal(one, image[:, ::-1]) for one in out])
    assert all(np.array_equal(one, image) for one in out[~mirrored])
    assert abs(mirrored.mean() - 0.5) < 0.04


def test_colour_is_one_gain_and_one_offset_per_picture():
    values = np.broadcast_to(np.arange(40, 200, dtype=np.uint8).reshape(1, 16, 10, 1), (500, 16, 10, 3))
    out = np.asarray(augment.colour(values, keys(500), 0.3)).astype(float)
    inner = (out > 0).all((1, 2, 3)) & (out < 255).all((1, 2, 3))
    fits = [np.polyfit(values[0].ravel(), one.ravel(), 1) for one in out[inner]]
    for (gain, bias), one in zip(fits, out[inner], strict=True):
        np.testing.assert_allclose(one, values[0] * gain + bias, atol=1)
    gains = np.array([gain for gain, _ in fits])
    assert 0.69 < gains.min() < 0.75
    assert 1.1 < gains.max() < 1.31


def test_an_erased_part_is_one_rectangle_of_the_papers_size():
    height, width, count = 30, 40, 800
    out = np.asarray(augment.erase(np.zeros((count, height, width, 3), np.uint8), keys(count), 0.75)).any(-1)
    low, high = augment.ERASED_AREA
    for one in out[out.any((1, 2))]:
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert h * w <= high * height * width
        assert (h + 1) * (w + 1) >= low * height * width  # sides are rounded down
        assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.98  # noise may be black, rarely
    assert abs(out.any((1, 2)).mean() - 0.75) < 0.05


def test_the_noise_of_an_erased_part_is_uniform_over_all_bytes():
    black, white = (augment.erase(np.full((400, 31, 33, 3), v, np.uint8), keys(400), 1.0) for v in (0, 255))
    counts = np.bincount(np.asarray(black)[np.asarray(black) == np.asarray(white)], minlength=256)
    np.testing.assert_allclose(counts / counts.mean(), 1.0, atol=0.3)


def test_operations_of_rand_augment_are_equally_likely_in_both_directions():
    which, sign = [], []

    def record(images, drawn, m):
        which.append(drawn)
        sign.append(m)
        return images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rand_augment, "operate", record)
        rand_augment.rand_augment(np.zeros((3000, 2, 2, 3), np.uint8), keys(3000), 2, 0.5)
    assert len(which) == 2
    for drawn, m in zip(which, sign, strict=True):
        counts = np.bincount(np.asarray(drawn), minlength=14)
        assert counts.min() > 150
        assert counts.max() < 280
        assert set(np.unique(m)) == {-0.5, 0.5}
        assert abs(np.mean(np.asarray(m) > 0) - 0.5) < 0.04
    assert abs(np.mean(np.asarray(which[0]) == np.asarray(which[1])) - 1 / 14) < 0.03  # drawn anew each time


def test_an_example_does_not_depend_on_its_batch():
    images = np.stack([picture(40, 40, seed) for seed in range(6)])
    run = jax.jit(lambda images, keys: augment.faces(images, keys, EVERYTHING, 32))  # cheaper than one by one
    whole = np.asarray(run(images, keys(6)))
    assert whole.shape == (6, 32, 32, 3)
    assert whole.dtype == np.uint8
    for part in (slice(0, 2), slice(3, 4)):
        one = np.asarray(run(images[part], keys(6)[part]))
        assert np.abs(one.astype(int) - whole[part]).max() <= 1  # a product may be summed in another order
    assert len({one.tobytes() for one in whole}) == 6
    clips = np.random.default_rng(0).normal(size=(3, 2, 96, 64)).astype(np.float32)
    strength = {"spec_shift": 3, "spec_time": 20, "spec_freq": 9}
    both = augment.windows(clips, keys(3), strength)
    np.testing.assert_array_equal(augment.windows(clips[1:2], keys(3)[1:2], strength), both[1:2])


@pytest.mark.parametrize(("shape", "size"), [((1, 1), 7), ((1, 40), 1), ((37, 3), 32)])
def test_any_picture_becomes_one_of_the_asked_size(shape, size):
    strength = {"crop": 0.9, "flip": True, "colour": 1.0, "operations": 2, "magnitude": 1.0, "erase": 1.0}
    out = jax.jit(lambda images: augment.faces(images, keys(1), strength, size))(picture(*shape)[None])
    assert (out.shape, out.dtype) == ((1, size, size, 3), jnp.uint8)


def test_the_key_decides_everything():
    images = np.broadcast_to(picture(24, 24), (12, 24, 24, 3))
    run = jax.jit(lambda keys: augment.faces(images, keys, EVERYTHING, 24))
    one, again, other = (np.asarray(run(keys(12, seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert len({picture.tobytes() for picture in [*one, *other]}) == 24


def test_more_of_an_operation_changes_more():
    names = [name for name in rand_augment.OPERATIONS if name != "identity"]
    images = np.broadcast_to(picture(), (len(names), 48, 48, 3))
    which = jnp.array([rand_augment.OPERATIONS.index(name) for name in names])
    little, much = (
        np.abs(
            np.asarray(rand_augment.operate(images, which, jnp.full(len(names), m, jnp.float32))).astype(int) - images
        )
        for m in (0.2, 1.0)
    )
    for name, few, many in zip(names, little.mean((1, 2, 3)), much.mean((1, 2, 3)), strict=True):
        assert many > 0, name
        assert many > few or name in ("auto_contrast", "equalise"), name  # these have no strength


@pytest.mark.parametrize("strength", [{}, {"crop": 0.0, "flip": False, "colour": 0.0, "operations": 0, "erase": 0.0}])
def test_no_strength_is_no_change(strength):
    images = picture()[None]
    np.testing.assert_array_equal(augment.faces(images, keys(1), strength, 48), images)
    clips = np.ones((1, 2, 96, 64), np.float32)
    np.testing.assert_array_equal(augment.windows(clips, keys(1), {}), clips)


def test_spec_augment_masks_one_band_and_one_stretch_per_window():
    time, freq, count = 30, 12, 200
    clips = np.random.default_rng(0).normal(size=(count, 2, 96, 64)).astype(np.float32)
    clips[:, 1] = 0  # no sound
    out = np.asarray(augment.spec_augment(clips, keys(count), time, freq))
    np.testing.assert_array_equal(out[:, 1], 0)
    widths = []
    for window, masked in zip(clips[:, 0], out[:, 0], strict=True):
        changed = masked != window
        np.testing.assert_allclose(masked[changed], window.mean(), rtol=1e-4, atol=1e-5)
        rows, bands = np.flatnonzero(changed.all(1)), np.flatnonzero(changed.all(0))
        widths.append((len(rows), len(bands)))
        for hit, most in ((rows, time), (bands, freq)):
            assert len(hit) <= most
            assert len(hit) == 0 or np.ptp(hit) + 1 == len(hit)
        outside = changed.copy()
        outside[rows], outside[:, bands] = False, False
        assert not outside.any()
    rows, bands = np.transpose(widths)
    assert abs(rows.mean() - time / 2) < 2  # uniform in 0 … T
    assert abs(bands.mean() - freq / 2) < 1
    assert {0, freq} <= set(bands)


def test_a_shift_moves_all_windows_of_a_clip_alike():
    clips = np.broadcast_to(np.arange(64, dtype=np.float32), (300, 3, 96, 64))
    out = np.asarray(augment.shift_bands(clips, keys(300), 2))
    shifts = []
    for one in out:
        np.testing.assert_array_equal(one, np.broadcast_to(one[0, 0], one.shape))
        shifts.append(int(32 - one[0, 0, 32]))
        np.testing.assert_array_equal(one[0, 0], np.clip(np.arange(64) - shifts[-1], 0, 63))
    assert np.bincount(np.array(shifts) + 2).min() > 35  # -2 … 2, equally often


@pytest.mark.parametrize(
    ("field", "value"),
    [("crop", 1.0), ("erase", 1.5), ("colour", -0.1), ("operations", -1), ("spec_time", -2), ("spec_shift", -1)],
)
def test_a_strength_out_of_range_is_named(field, value):
    with pytest.raises(UserError, match=rf"data\.augment\.{field} is {value}: it takes"):
        augment.check({field: value})
