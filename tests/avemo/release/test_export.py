import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from avemo import predict
from avemo.release import export
from helpers import tiny_runs
from media.errors import UserError


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    visual, audio = tiny_runs.visual(folder / "visual"), tiny_runs.audio(folder / "audio")
    fusion = tiny_runs.fusion(folder / "fusion", visual, audio)
    return fusion, folder / "out", export.export(fusion, str(folder / "out"))


def test_nothing_of_this_machine_is_in_the_programs(exported):
    _, folder, _ = exported
    here = pathlib.Path(export.__file__).parents[2]
    for path in folder.iterdir():
        content = path.read_bytes()
        for place in (here, pathlib.Path.home(), pathlib.Path(sys.prefix), folder.parent):
            assert bytes(place) not in content, (path.name, place)
        assert b".py" not in content or path.suffix in (".py", ".json")


def features(models, frames, rng):
    batch = {m: rng.normal(size=(2, frames, d)).astype(np.float32) for m, d in models.fusion.dims.items()}
    for name in ("audio_mask", "visual_mask"):
        batch[name] = rng.random((2, frames)) < 0.8
    return batch


@pytest.mark.portable
def test_the_programs_equal_the_run_in_a_process_that_has_jax_alone(exported, tmp_path):
    fusion, folder, manifest = exported
    assert set(manifest["parts"]) == {"visual", "audio", "fusion", "step"}
    assert manifest["platforms"] == ["cpu", "cuda", "tpu"]
    rng = np.random.default_rng(0)
    models = predict.open_models(fusion)
    faces = rng.integers(0, 255, (3, *models.visual.example.shape)).astype(np.uint8)
    windows = rng.normal(size=(5, 96, 64)).astype(np.float32)
    batch = features(models, 9, rng)
    np.savez(tmp_path / "in.npz", faces=faces, windows=windows, **batch)
    script = f"""
import sys
for name in ("avemo", "flax", "tensorflow", "data_prep", "orbax", "etils"):
    sys.modules[name] = None  # importing it is an error
sys.path.insert(0, {str(folder)!r})
import jax, loader, numpy as np
run, x = loader.load({str(folder)!r}), dict(np.load({str(tmp_path / "in.npz")!r}))
batch = {{k: x[k] for k in ("audio", "visual", "audio_mask", "visual_mask")}}
batch["mask"] = np.ones((2, 9), bool)
carry, live = run.start(batch=2), []
for t in range(9):
    carry, out = run.step(carry, {{k: v[:, t : t + 1] for k, v in batch.items()}})
    live.append(out["traces"])
np.savez({str(tmp_path / "out.npz")!r}, descriptor=run.visual(x["faces"])["descriptor"],
         embedding=run.audio(x["windows"])["embedding"], traces=run.fusion(batch)["traces"],
         live=np.concatenate(live, 1))
"""
    environment = {"JAX_PLATFORMS": "cpu", "PATH": "", "HOME": str(tmp_path), "XLA_FLAGS": os.environ["XLA_FLAGS"]}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    got = np.load(tmp_path / "out.npz")
    expected, _ = models.fusion.apply(batch)
    np.testing.assert_allclose(got["descriptor"], models.visual(faces)["descriptor"], atol=1e-4)
    np.testing.assert_allclose(got["embedding"], models.audio(windows)["embedding"], atol=1e-4)
    np.testing.assert_allclose(got["traces"], expected["traces"], atol=1e-5)
    np.testing.assert_allclose(got["live"], expected["traces"], atol=1e-5)


def test_programs_hold_every_platform(exported):
    _, folder, manifest = exported
    for part in manifest["parts"].values():
        program = jax.export.deserialize(bytearray((folder / part["file"]).read_bytes()))
        assert program.platforms == ("cpu", "cuda", "tpu")
        assert "b" in str(program.in_avals[0].shape[0])
    assert json.loads((folder / "manifest.json").read_text()) == manifest


def loader_in(folder):
    """The run in an exported folder, opened by the folder's own loader."""
    spec = importlib.util.spec_from_file_location("loader", folder / "loader.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    return loader.load(folder)


@pytest.mark.parametrize("cause", ["too old", "damaged"])
def test_a_program_that_jax_does_not_read_is_one_line(cause, exported, tmp_path, monkeypatch):
    folder = shutil.copytree(exported[1], tmp_path / "out")
    if cause == "too old":

        def refuse(_):
            raise ValueError("Deserializing the Exported is not supported:\nit was serialized more than 6 months ago.")

        monkeypatch.setattr(jax.export, "deserialize", refuse)
    else:
        (folder / "visual.jaxexport").write_bytes(b"\0" * 64)
    with pytest.raises(ValueError, match=f"by jax {jax.__version__} on 20[0-9-]{{8}}, cannot be read") as raised:
        loader_in(folder)
    said = str(raised.value)
    assert "\n" not in said
    assert "`python launch.py export --workdir=RUN --output=DIR`" in said
    assert cause != "too old" or "more than 6 months ago" in said


@pytest.mark.parametrize("kind", ["visual", "audio"])
def test_a_run_of_an_encoder(kind, tmp_path):
    run = getattr(tiny_runs, kind)(tmp_path / "run")
    manifest = export.export(run, str(tmp_path / "out"))
    assert list(manifest["parts"]) == [kind]
    network = getattr(predict.open_models(run), kind)
    program = getattr(loader_in(tmp_path / "out"), kind)
    inputs = np.random.default_rng(0).integers(0, 9, (3, *network.example.shape)).astype(network.example.dtype)
    for name, value in network(inputs).items():
        np.testing.assert_allclose(program(inputs)[name], value, atol=1e-4)


@pytest.mark.parametrize(("fusion", "temporal"), [("cross_attention", "gru"), ("concat", "mingru")])
def test_a_network_whose_length_must_be_known_is_padded(fusion, temporal, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "WINDOW", 24)
    encoders = [str(pathlib.Path(exported[0]).parent / name) for name in ("visual", "audio")]
    run = tiny_runs.fusion(tmp_path / "run", *encoders, fusion=fusion, fusion_args={"features": 8}, temporal=temporal)
    manifest = export.export(run, str(tmp_path / "out"))
    assert manifest["parts"]["fusion"]["frames"] == 24
    assert ("step" in manifest["parts"]) == (temporal == "mingru")
    models, program = predict.open_models(run), loader_in(tmp_path / "out").fusion
    batch = features(models, 9, np.random.default_rng(0))
    expected, _ = models.fusion.apply(batch)
    got = program({**batch, "mask": np.ones((2, 9), bool)})
    np.testing.assert_allclose(got["traces"], expected["traces"], atol=1e-5)
    with pytest.raises(ValueError, match="24 frames at once"):
        program({"mask": np.ones((1, 25), bool)})


def test_a_folder_that_is_not_a_run(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        export.export(str(tmp_path), str(tmp_path / "out"))
