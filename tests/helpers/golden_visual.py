"""Checks a small parity case against the golden file of facenet-pytorch and torchvision."""

import jax
import numpy as np

from benchmarks.parity import visual, visual_cases

GOLDENS = np.load(visual_cases.GOLDEN)


def check_outputs(name, mode):
    """Every stage equals the reference within 1e-4 of its largest value."""
    case = visual.small_cases()[name]
    outputs, _, _ = visual.run_ours(case, mode == "train")
    prefix = f"{name}/{mode}/"
    stages = [key.removeprefix(prefix) for key in GOLDENS.files if key.startswith(prefix)]
    assert stages == list(outputs) if name == "densenet" else set(stages) == set(outputs)
    for stage in stages:
        golden = GOLDENS[prefix + stage]
        np.testing.assert_allclose(
            visual.sample(stage, outputs[stage]), golden, rtol=0, atol=visual.OUTPUT * golden[-1], err_msg=stage
        )


def check_gradients(name):
    """Every gradient in training mode is within 1e-3 of its tensor's largest value; float64 (see `gradient_row`)."""
    with jax.enable_x64(True):
        gradients = visual.run_ours(visual.small_cases()[name], True, np.float64, gradients=True)[1]
    prefix = f"{name}/gradient/"
    golden = {key.removeprefix(prefix): GOLDENS[key] for key in GOLDENS.files if key.startswith(prefix)}
    assert set(golden) == set(gradients)
    floor = 1e-6 * max(value[-1] for value in golden.values())
    for path, value in golden.items():
        np.testing.assert_allclose(
            visual.sample(path, gradients[path]),
            value,
            rtol=0,
            atol=visual.GRADIENT * max(value[-1], floor),
            err_msg=path,
        )
