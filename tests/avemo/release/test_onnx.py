"""Networks as ONNX: onnxruntime gives what JAX gives, for any batch and length, whole and frame by frame."""

import importlib.util
import json

import numpy as np
import pytest

from avemo.predict.models import open_models
from avemo.release import export, onnx_export
from helpers import films, tiny_runs
from media.errors import UserError

needs_onnx = pytest.mark.skipif(
    not (importlib.util.find_spec("jax2onnx") and importlib.util.find_spec("onnxruntime")),
    reason="needs jax2onnx and onnxruntime",
)
PARITY = 1e-4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    student, speech = tiny_runs.visual(folder / "student"), tiny_runs.audio(folder / "speech")
    fields = {"fusion": "model_level", "fusion_args": {"features": 8}}  # jax2onnx 0.13 mixes up types in `gmu`
    return tiny_runs.fusion(folder / "fusion", student, speech, films.FACES, **fields)


def loaded(folder):
    """`loader.py` of an export, imported as a stranger would."""
    spec = importlib.util.spec_from_file_location("loader", folder / "loader.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(folder)


def sequences(batch, frames, dims):
    rng = np.random.default_rng(batch * 100 + frames)
    masks = {name: rng.random((batch, frames)) > 0.2 for name in ("audio_mask", "visual_mask")}
    features = {m: rng.normal(size=(batch, frames, d)).astype(np.float32) for m, d in dims.items()}
    return {**features, **masks, "mask": np.ones((batch, frames), bool)}


@needs_onnx
@pytest.mark.filterwarnings("ignore")  # of jax2onnx's own
def test_onnxruntime_gives_what_jax_gives(run, tmp_path):
    export.export(run, str(tmp_path / "onnx"), format="onnx")
    manifest = json.loads((tmp_path / "onnx/manifest.json").read_text())
    assert manifest["preprocessing"]["visual"]["size"] == 32
    assert set(manifest["parts"]) == {"visual", "audio", "fusion", "step"}
    assert not list((tmp_path / "onnx").glob("*.data"))  # the weights are inside
    networks, models = loaded(tmp_path / "onnx"), open_models(run)
    rng = np.random.default_rng(0)
    for count in (1, 3):
        faces = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        windows = rng.normal(size=(count, 96, 64)).astype(np.float32)
        for name, inputs, encoder in (("visual", faces, models.visual), ("audio", windows, models.audio)):
            given, expected = getattr(networks, name)({"inputs": inputs}), encoder(inputs)
            for output, value in expected.items():
                np.testing.assert_allclose(given[output], value, atol=PARITY, err_msg=f"{name} {output}")
    for batch, frames in ((1, 7), (2, 12)):
        inputs = sequences(batch, frames, models.fusion.dims)
        expected, _ = models.fusion.apply(inputs)
        whole = networks.fusion(inputs)
        np.testing.assert_allclose(whole["traces"], expected["traces"], atol=PARITY)
        carry, live = networks.start(batch), []
        for frame in range(frames):
            carry, out = networks.step(carry, {name: value[:, frame : frame + 1] for name, value in inputs.items()})
            live.append(out["traces"])
        np.testing.assert_allclose(np.concatenate(live, 1), expected["traces"], atol=PARITY)


def test_without_jax2onnx_the_remedy_is_said(run, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_converter", missing)
    with pytest.raises(UserError, match="pip install"):
        export.export(run, str(tmp_path / "onnx"), format="onnx")
    assert not (tmp_path / "onnx").exists()
    with pytest.raises(UserError, match="onnx"):
        export.export(run, str(tmp_path / "other"), format="tflite")


def missing():
    raise UserError('--format=onnx needs jax2onnx: pip install "jax2onnx>=0.13" onnxruntime.')


def test_an_operator_that_cannot_be_written_is_named(run, tmp_path, monkeypatch):
    def unknown_operator(*_, **__):
        raise NotImplementedError("no plugin for primitive 'strange'")

    monkeypatch.setattr(onnx_export, "_converter", lambda: (unknown_operator, None))
    with pytest.raises(UserError, match=r"visual of this run .*strange.*--format=stablehlo"):
        export.export(run, str(tmp_path / "onnx"), format="onnx")
