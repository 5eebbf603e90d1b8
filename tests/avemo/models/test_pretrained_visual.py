"""Published weights: file formats, names, errors, and initialising a model with them."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from avemo.models import expression, pretrained
from avemo.models.mobilenet import MobileNetV1
from avemo.models.pretrained import networks, statistics, tf_checkpoint, tfjs, tflite, torch_file
from avemo.models.pretrained.__main__ import main
from avemo.ops.convolution import ConvNorm
from benchmarks.parity import weight_files, weights
from media.errors import UserError

FILES = weight_files.FOLDER


class Tiny(nn.Module):
    """The network whose weights are in tests/golden/weights/*.pt."""

    @nn.compact
    def __call__(self, x, train):
        x = ConvNorm(4, (3, 3), name="stem")(x, train)
        return nn.Dense(5, use_bias=False, name="last_linear")(x.mean(axis=(1, 2)))


@pytest.fixture
def tiny(monkeypatch):
    """A registered network, small enough to convert often."""
    source = dataclasses.replace(networks.SOURCES["facenet_vggface2"], network=Tiny, inputs=(1, 6, 6, 3))
    monkeypatch.setitem(networks.SOURCES, "tiny", source)
    return source


def write_tfjs(folder, variables):
    """Writes MobileNet-v1 variables as a TF.js model laid out like the published one; returns the JSON's path."""
    tensors = {"age_pred/kernel": np.zeros((2, 3), np.float32), "conv1_relu/Cast": np.float32(6)}
    for name, layer in variables["params"].items():
        depthwise = name.startswith("conv_dw")
        kernel = np.asarray(layer["conv"]["kernel"])
        if depthwise:
            tensors[f"{name}/depthwise_kernel"] = kernel.swapaxes(2, 3)
            tensors[f"{name}_bn/batchnorm_1/mul"] = np.asarray(layer["bn"]["scale"])
        else:
            tensors[f"{name}/convolution/merged_input"] = kernel
        tensors[f"{name}_bn/batchnorm_1/sub"] = np.asarray(layer["bn"]["bias"])
    listed = [{"name": k, "shape": list(v.shape), "dtype": "float32"} for k, v in tensors.items()]
    file = folder / "net.json"
    file.write_text(json.dumps({"weightsManifest": [{"paths": ["net.bin"], "weights": listed}]}))
    (folder / "net.bin").write_bytes(b"".join(np.ascontiguousarray(v).tobytes() for v in tensors.values()))
    return file


# File formats


@pytest.mark.parametrize("name", ["zip.pt", "legacy.pt"])
def test_both_pytorch_formats_hold_what_pytorch_wrote(name):
    tensors = torch_file.read(FILES / name)
    assert tensors.pop("stem.bn.num_batches_tracked") == 7
    expected = weight_files.values(weight_files.TORCH_SHAPES)
    assert set(tensors) == set(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(tensors[key], value)


@pytest.mark.parametrize("name", ["v1.ckpt", "v2", "v2.index"])
def test_both_tensorflow_formats_hold_what_tensorflow_wrote(name):
    tensors = tf_checkpoint.read(FILES / name)
    expected = weight_files.values(weight_files.TF_SHAPES)
    assert set(tensors) == set(expected)  # the int64 step counter is left out
    for key, value in expected.items():
        np.testing.assert_array_equal(tensors[key], value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("module.pt", "holds torch.nn.modules.linear.Linear, which is not a plain tensor: save the model's state_dict"),
        ("nested.pt", "state is a dict, not a tensor"),
        ("v1.ckpt", "not a readable PyTorch state dict"),
    ],
)
def test_files_that_are_not_a_state_dict_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        torch_file.read(FILES / name)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("zip.pt", torch_file.read),
        ("legacy.pt", torch_file.read),
        ("v1.ckpt", tf_checkpoint.read),
        ("v2.index", tf_checkpoint.read),
        ("v2.data-00000-of-00001", None),
    ],
)
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_a_user_error(tmp_path, name, read, keep):
    for file in FILES.iterdir():
        shutil.copy(file, tmp_path)
    whole = (FILES / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(UserError, match=str(tmp_path)):
        (read or tf_checkpoint.read)(tmp_path / ("v2.index" if read is None else name))


def test_a_pickle_cannot_run_code(tmp_path):
    file = tmp_path / "evil.pt"
    file.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(UserError, match=r"os\.system"):
        torch_file.read(file)
    assert not (tmp_path / "ran").exists()


def test_tflite_refuses_what_is_not_tflite(tmp_path):
    file = tmp_path / "x.tflite"
    file.write_bytes(b"\0" * 64)
    with pytest.raises(UserError, match="no TFL3 mark"):
        tflite.read(file)


def test_tfjs_names_a_missing_a_truncated_and_an_overlong_shard(tmp_path):
    net = MobileNetV1(width=0.25, blocks=1)
    file = write_tfjs(tmp_path, weights.variables(net, jnp.zeros((1, 8, 8, 3)), seed=0))
    shard = tmp_path / "net.bin"
    data = shard.read_bytes()
    shard.write_bytes(data[:-4])
    with pytest.raises(UserError, match=r"net\.bin: truncated at tensor conv_pw_1_bn/batchnorm_1/sub"):
        tfjs.read(file)
    shard.write_bytes(data + b"\0")
    with pytest.raises(UserError, match="1 bytes more"):
        tfjs.read(file)
    shard.unlink()
    with pytest.raises(UserError, match=r"net\.bin are missing"):
        tfjs.read(file)


# Conversion


def test_converted_weights_are_the_files_and_carry_their_provenance(tiny, tmp_path):
    provenance = pretrained.convert("tiny", FILES / "legacy.pt", tmp_path / "out")
    loaded = pretrained.load_pretrained(tmp_path / "out")
    values = weight_files.values(weight_files.TORCH_SHAPES)
    np.testing.assert_array_equal(
        loaded.params["stem"]["conv"]["kernel"], values["stem.conv.weight"].transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(loaded.params["last_linear"]["kernel"], values["last_linear.weight"].T)
    np.testing.assert_array_equal(loaded.batch_stats["stem"]["bn"]["var"], values["stem.bn.running_var"])
    assert loaded.provenance == provenance
    assert provenance["network"] == "tiny"
    assert provenance["source_file"] == "legacy.pt"
    assert provenance["parameters"] == 3 * 3 * 3 * 4 + 4 + 4 + 20
    assert len(provenance["sha256"]) == 64
    assert "non-commercial" in provenance["licence"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("stem.bn.running_var"), "no tensor for batch_stats/stem/bn/var"),
        (lambda t: t.update({"extra.conv.weight": np.zeros((1, 1, 1, 1))}), "unexpected tensor extra.conv.weight"),
        (lambda t: t.update({"stem.alpha": np.zeros(1)}), "unexpected tensor stem.alpha"),
        (
            lambda t: t.update({"stem.conv.weight": np.zeros((8, 3, 3, 3))}),
            r"tensor stem.conv.weight has shape \(3, 3, 3, 8\), expected \(3, 3, 3, 4\) for params/stem/conv/kernel",
        ),
        (lambda t: t["stem.bn.bias"].fill(np.nan), "tensor stem.bn.bias has values that are not finite"),
    ],
)
def test_weights_that_do_not_fit_name_the_tensor_and_leave_nothing(tiny, tmp_path, monkeypatch, change, message):
    tensors = torch_file.read(FILES / "zip.pt")
    change(tensors)
    monkeypatch.setitem(networks.SOURCES, "tiny", dataclasses.replace(tiny, read=lambda file: tensors))
    with pytest.raises(UserError, match=message):
        pretrained.convert("tiny", FILES / "zip.pt", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_leaves_nothing(tiny, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(pretrained.json, "dumps", full)
    with pytest.raises(UserError, match=r"out: cannot be written \(disk full\)"):
        pretrained.convert("tiny", FILES / "zip.pt", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_command_line_reports_success_and_user_errors(tiny, tmp_path, capsys):
    arguments = ["tiny", f"--file={FILES / 'zip.pt'}", f"--output={tmp_path / 'out'}"]
    assert main(arguments) == 0
    assert "136 parameters" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["facenet_vggface", *arguments[1:]]) == 2
    assert "did you mean 'facenet_vggface2'" in capsys.readouterr().err
    assert main(["tiny", "--file=nowhere.pt", f"--output={tmp_path / 'new'}"]) == 2
    assert "error: nowhere.pt: cannot be read (No such file or directory)" in capsys.readouterr().err


def test_faceres_folds_to_a_batch_norm_that_changes_nothing(tmp_path, monkeypatch):
    small = dataclasses.replace(networks.SOURCES["faceres"], network=lambda: MobileNetV1(width=0.25, blocks=2))
    monkeypatch.setitem(networks.SOURCES, "faceres", small)
    variables = weights.variables(small.network(), jnp.zeros((1, 8, 8, 3)), seed=0)
    pretrained.convert("faceres", write_tfjs(tmp_path, variables), tmp_path / "out")
    loaded = pretrained.load_pretrained(tmp_path / "out")
    np.testing.assert_array_equal(
        loaded.params["conv_dw_2"]["conv"]["kernel"], variables["params"]["conv_dw_2"]["conv"]["kernel"]
    )
    np.testing.assert_array_equal(
        loaded.params["conv_dw_2"]["bn"]["scale"], variables["params"]["conv_dw_2"]["bn"]["scale"]
    )
    np.testing.assert_array_equal(loaded.params["conv_pw_2"]["bn"]["scale"], 1)
    np.testing.assert_allclose(loaded.batch_stats["conv_pw_2"]["bn"]["var"] + small.network().bn_epsilon, 1, atol=1e-7)


def test_another_activation_than_relu6_is_refused():
    with pytest.raises(UserError, match=r"conv1_relu/Cast is 1\.0: the activation is not ReLU6"):
        networks.place_faceres("conv1_relu/Cast", np.float32(1))


@pytest.mark.parametrize("name", ["facenet_vggface2", "densenet201"])
def test_every_tensor_of_the_published_networks_has_a_place_in_pytorchs_names(name):
    source = networks.SOURCES[name]
    placed = {}
    for path, shape in source.shapes.items():
        torch_name, value = to_torch(name, path, np.empty(shape, np.float32))
        target, back = source.place(torch_name, value)
        placed[target] = back.shape
    assert placed == source.shapes


def to_torch(network, path, value):
    """The inverse of the converter's rule, written independently."""
    _, *modules, leaf = path
    leaves = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    if network == "densenet201":
        modules = ["features", *modules]
    else:
        indexed = ("repeat", "branch")
        modules = [
            module.replace("_", ".") if module.startswith("branch") else
            ".".join(module.rsplit("_", 1)) if module.startswith(indexed) else module
            for module in modules
        ]  # fmt: skip
    value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    return ".".join([*modules, leaves[leaf]]), value


def test_old_densenet_names_are_understood():
    value = np.zeros((8, 4, 1, 1), np.float32)
    path, _ = networks.place_densenet("features.denseblock1.denselayer2.conv.1.weight", value)
    assert path == ("params", "denseblock1", "denselayer2", "conv1", "kernel")


# Into a model


def converted(params, batch_stats):
    return pretrained.Pretrained(params, batch_stats, {"network": "tiny"})


def test_merge_replaces_what_is_under_the_prefix_and_leaves_the_rest():
    params = {"trunk": {"a": jnp.zeros(2)}, "head": {"b": jnp.ones(3)}}
    weights_ = converted({"a": np.full(2, 5.0), "behind_the_cut": np.ones(9)}, {})
    merged, stats = pretrained.merge_into(params, {}, weights_, "trunk")
    np.testing.assert_array_equal(merged["trunk"]["a"], 5)
    assert merged["trunk"]["a"].dtype == np.float32
    assert merged["head"] is params["head"]
    assert stats == {}
    assert set(merged["trunk"]) == {"a"}


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"x": np.zeros(2)}, "weights of tiny have no tensor a/kernel"),
        ({"a": {"kernel": np.zeros(3)}}, r"tensor a/kernel is \(3,\) in the weights of tiny, but \(2,\) in the model"),
    ],
)
def test_merge_names_the_tensor_that_does_not_fit(theirs, message):
    with pytest.raises(UserError, match=message):
        pretrained.merge_into({"trunk": {"a": {"kernel": jnp.zeros(2)}}}, {}, converted(theirs, {}), "trunk")


def test_initialise_gives_an_expression_network_its_trunk(tmp_path, monkeypatch):
    small = dataclasses.replace(networks.SOURCES["faceres"], network=lambda: MobileNetV1(width=0.25, blocks=2))
    monkeypatch.setitem(networks.SOURCES, "faceres", small)
    published = weights.variables(small.network(), jnp.zeros((1, 8, 8, 3)), seed=1)
    pretrained.convert("faceres", write_tfjs(tmp_path, published), tmp_path / "out")
    net = expression.build({"name": "mobilenet_v1", "width": 0.25, "blocks": 2, "neck": "project"})
    fresh = weights.variables(net, jnp.zeros((1, 8, 8, 3)), seed=0)
    variables = pretrained.initialise(fresh, pretrained.load_pretrained(tmp_path / "out"))
    np.testing.assert_array_equal(
        variables["params"]["trunk"]["conv1"]["conv"]["kernel"], published["params"]["conv1"]["conv"]["kernel"]
    )
    np.testing.assert_array_equal(variables["batch_stats"]["trunk"]["conv1"]["bn"]["mean"], 0)
    jax.tree.map(np.testing.assert_array_equal, variables["params"]["neck"], fresh["params"]["neck"])
    with pytest.raises(UserError, match="no converted weights"):
        pretrained.load_pretrained(tmp_path)


def test_initialise_from_a_run_keeps_heads_of_another_size():
    stored = {
        "params": {"neck": {"w": np.full(2, 3.0)}, "expression_head": {"bias": np.full(8, 3.0)}},
        "batch_stats": {"neck": {"mean": np.full(2, 4.0)}},
    }
    fresh = {
        "params": {"neck": {"w": jnp.zeros(2)}, "expression_head": {"bias": jnp.zeros(7)}},
        "batch_stats": {"neck": {"mean": jnp.zeros(2)}},
    }
    variables = pretrained.initialise_from_run(fresh, stored, "run A step 7")
    np.testing.assert_array_equal(variables["params"]["neck"]["w"], 3)
    np.testing.assert_array_equal(variables["batch_stats"]["neck"]["mean"], 4)
    np.testing.assert_array_equal(variables["params"]["expression_head"]["bias"], jnp.zeros(7))
    fresh["params"]["neck"]["w"] = jnp.zeros(3)
    with pytest.raises(UserError, match=r"tensor neck/w .* of run A step 7"):
        pretrained.initialise_from_run(fresh, stored, "run A step 7")


class Folded(nn.Module):
    """Two units whose BatchNorm has been folded away."""

    bn_epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x, train):
        x = ConvNorm(4, (3, 3), epsilon=self.bn_epsilon, name="first")(x, train)
        return ConvNorm(3, epsilon=self.bn_epsilon, activation=None, name="second")(x, train)


def test_statistics_of_data_change_the_training_mode_alone():
    data = np.random.default_rng(0).normal(2, 3, (3, 8, 6, 6, 2)).astype(np.float32)
    variables = weights.variables(Folded(), jnp.asarray(data[0]), seed=0)
    found = statistics.renormalised(Folded(), variables, data)
    apply = jax.jit(Folded().apply, static_argnums=2)
    np.testing.assert_allclose(apply(found, data[0], False), apply(variables, data[0], False), rtol=1e-4, atol=1e-4)
    whole = data.reshape(-1, *data.shape[2:])
    trained, _ = Folded().apply(found, whole, True, mutable=["batch_stats"])
    np.testing.assert_allclose(trained, apply(found, whole, False), rtol=1e-3, atol=1e-3)
