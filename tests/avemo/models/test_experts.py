"""The product of experts: Bayes' rule on two classifiers' answers, whatever is absent."""

import jax
import numpy as np
import pytest

from avemo.models import audiovisual
from media.errors import UserError

FIELDS = {"fusion": "experts", "temporal": "none", "num_classes": 3}
CLASSES = {"audio_classes": (0, 1, 2), "visual_classes": (1, 1, 0)}
VARIABLES = {"params": {"fusion": {"weights": np.array([1.0, 2.0], np.float32)}}}


def run(visual_mask=True, audio_mask=True, **fields):
    rng = np.random.default_rng(0)
    audio, visual = rng.normal(size=(2, 4, 3)).astype(np.float32), rng.normal(size=(2, 4, 2)).astype(np.float32)
    masks = [np.full((2, 4), value) for value in (audio_mask, visual_mask, True)]
    audio, visual = (np.where(m[..., None], x, np.nan) for x, m in ((audio, masks[0]), (visual, masks[1])))
    model = audiovisual.build({**FIELDS, "fusion_args": CLASSES, **fields})
    return audio, visual, model.apply(VARIABLES, audio, visual, *masks)


def test_the_probability_is_the_product_of_the_experts():
    audio, visual, out = run()
    p_audio, p_visual = (np.asarray(jax.nn.softmax(x)) for x in (audio, visual))
    product = p_audio * p_visual[..., [1, 1, 0]] ** 2
    np.testing.assert_allclose(
        jax.nn.softmax(out["logits"]), product / product.sum(-1, keepdims=True), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(out["gates"], np.broadcast_to([1 / 3, 2 / 3], (2, 4, 2)), rtol=1e-6)


def test_an_expert_s_prior_is_divided_out():
    share = np.array([0.8, 0.2])
    audio, visual, out = run(fusion_args={**CLASSES, "visual_prior": tuple(np.log(share))})
    p_audio, p_visual = (np.asarray(jax.nn.softmax(x)) for x in (audio, visual))
    product = p_audio * (p_visual / share)[..., [1, 1, 0]] ** 2
    np.testing.assert_allclose(
        jax.nn.softmax(out["logits"]), product / product.sum(-1, keepdims=True), rtol=1e-5, atol=1e-6
    )
    _, _, out = run(visual_mask=False, fusion_args={**CLASSES, "visual_prior": tuple(np.log(share))})
    np.testing.assert_allclose(jax.nn.softmax(out["logits"]), p_audio, rtol=1e-5)


def test_an_absent_expert_says_nothing():
    audio, _, out = run(visual_mask=False)
    np.testing.assert_allclose(jax.nn.softmax(out["logits"]), jax.nn.softmax(audio), rtol=1e-5)
    assert np.all(np.asarray(out["gates"]) == [1, 0])
    _, _, out = run(visual_mask=False, audio_mask=False)
    assert np.all(np.asarray(out["logits"]) == 0)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"fusion_args": {}}, "must name, for each class of the output"),
        ({"fusion_args": {**CLASSES, "visual_classes": (0, 1, 2)}}, "one of 2 classes"),
        ({"fusion_args": {**CLASSES, "visual_prior": (0.0, 0.0, 0.0)}}, "must have a number for each of 2 classes"),
        ({"num_classes": 4}, "speak for 3 classes, but num_classes is 4"),
    ],
)
def test_classes_that_do_not_fit_are_refused(fields, says):
    with pytest.raises(UserError, match=says):
        run(**fields)
