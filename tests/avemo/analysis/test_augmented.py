"""The pictures of augmentations come from the functions of the training step."""

import numpy as np

from avemo import analysis
from avemo.data import rand_augment


def test_each_augmentation_is_shown_and_each_differs():
    y, x = np.mgrid[0:40, 0:40]
    face = (120 + 60 * np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], -1)).astype(np.uint8)
    window = np.random.default_rng(0).normal(size=(96, 64)).astype(np.float32)
    faces, sound = analysis.augmented_faces(face), analysis.augmented_sound(window)
    assert len(faces) == 1 + 4 + len(rand_augment.OPERATIONS) - 1  # as stored, four of ours, RandAugment's but identity
    assert {"flip", "crop 0.3", "colour 0.4", "erase", "RandAugment: shear x"} <= set(faces)
    for shown in (faces, sound):
        assert len({one.tobytes() for one in shown.values()}) == len(shown)
    again = analysis.augmented_faces(face)
    assert all(np.array_equal(again[name], one) for name, one in faces.items())
    titles = [axes.get_title() for axes in analysis.plot_augmentations(face, window).axes]
    assert [title for title in titles if title] == [*faces, *sound]
