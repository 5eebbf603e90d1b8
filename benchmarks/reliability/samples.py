"""A small file in each format that may come from strangers, and what reads it."""

import dataclasses
import io
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "weights"


@dataclasses.dataclass(frozen=True)
class Sample:
    """A file in one format.

    Attributes:
      title: the format's name in the table.
      write: writes the whole files into a folder and returns the path of the one that is damaged.
      read: reads that path; raises a `UserError` if it is damaged.
    """

    title: str
    write: Callable[[pathlib.Path], pathlib.Path]
    read: Callable[[pathlib.Path], Any]


def _golden(*names: str) -> Callable[[pathlib.Path], pathlib.Path]:
    def write(folder: pathlib.Path) -> pathlib.Path:
        for name in names:
            (folder / name).write_bytes((GOLDEN / name).read_bytes())
        return folder / names[0]

    return write


def _tfjs(folder: pathlib.Path) -> pathlib.Path:
    weights = [{"name": f"layer{i}/kernel", "shape": [3, 3, 2, i + 1], "dtype": "float32"} for i in range(6)]
    size = sum(4 * int(np.prod(weight["shape"])) for weight in weights)
    (folder / "net.bin").write_bytes(bytes(size))
    model = {"modelTopology": {"node": []}, "weightsManifest": [{"paths": ["net.bin"], "weights": weights}]}
    (folder / "net.json").write_text(json.dumps(model))
    return folder / "net.json"


def _tflite(folder: pathlib.Path) -> pathlib.Path:
    import flatbuffers

    builder = flatbuffers.Builder(0)

    def table(*fields: tuple[int, str, Any]) -> int:
        builder.StartObject(8)
        for number, kind, value in fields:
            getattr(builder, f"Prepend{kind}Slot")(number, value, 0)
        return builder.EndObject()

    def tables(offsets: list[int]) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    buffers, tensors = [table()], []
    for number in range(4):
        values = np.arange(24, dtype=np.int8 if number % 2 else np.float32)
        data = builder.CreateNumpyVector(values.view(np.uint8))
        buffers.append(table((0, "UOffsetTRelative", data)))
        name, shape = builder.CreateString(f"layer{number}"), builder.CreateNumpyVector(np.asarray([4, 6], np.int32))
        fields = [(0, "UOffsetTRelative", shape), (1, "Int8", 9 if number % 2 else 0), (2, "Uint32", number + 1)]
        fields += [(3, "UOffsetTRelative", name)]
        if number % 2:
            scale = builder.CreateNumpyVector(np.linspace(0.1, 0.6, 6, dtype=np.float32))
            zero = builder.CreateNumpyVector(np.zeros(6, np.int64))
            quantised = table((2, "UOffsetTRelative", scale), (3, "UOffsetTRelative", zero), (6, "Int32", 1))
            fields += [(4, "UOffsetTRelative", quantised)]
        tensors.append(table(*fields))
    inputs = builder.CreateNumpyVector(np.asarray([0, 1], np.int32))
    operator = table((1, "UOffsetTRelative", inputs), (2, "UOffsetTRelative", inputs))
    graph = table((0, "UOffsetTRelative", tables(tensors)), (3, "UOffsetTRelative", tables([operator])))
    codes = tables([table((3, "Int32", 3))])
    parts = (1, "UOffsetTRelative", codes), (2, "UOffsetTRelative", tables([graph]))
    builder.Finish(table((0, "Uint32", 3), *parts, (4, "UOffsetTRelative", tables(buffers))), b"TFL3")
    (folder / "net.tflite").write_bytes(bytes(builder.Output()))
    return folder / "net.tflite"


def _weights() -> bytes:
    from avemo.runs import weights

    rng = np.random.default_rng(0)
    layers = {f"layer{i}": {"kernel": rng.normal(size=(4, 6)).astype(np.float32)} for i in range(4)}
    return weights.pack(7, {"params": layers, "constants": {"mean": np.zeros(3, np.float32)}})


def _npz(name: str) -> Callable[[pathlib.Path], pathlib.Path]:
    def write(folder: pathlib.Path) -> pathlib.Path:
        (folder / name).write_bytes(_weights())
        return folder / name

    return write


def _predictions(folder: pathlib.Path) -> pathlib.Path:
    file = io.BytesIO()
    np.savez_compressed(file, recording=np.array(["a", "bc"]), prediction=np.zeros((300, 2)), mask=np.ones(300, bool))
    (folder / "dev.npz").write_bytes(file.getvalue())
    return folder / "dev.npz"


def _archive(folder: pathlib.Path) -> pathlib.Path:
    from avemo.runs import archive

    files = {"a/config.json": b"{}", "a/result.json": b"{}", "a/weights.npz": _weights(), "MODEL_CARD.md": b"# Card\n"}
    archive.write(folder / "a.zip", files, {"runs": {}})
    return folder / "a.zip"


def _run(broken: str) -> Callable[[pathlib.Path], pathlib.Path]:
    """A released student whose file `broken` is damaged."""

    def write(folder: pathlib.Path) -> pathlib.Path:
        import jax
        from ml_collections import ConfigDict

        from avemo.models import expression
        from avemo.runs import weights

        model = {"name": "compact", "image_size": 32, "num_classes": 3, "width": 0.25, "stages": 1, "last_features": 8}
        config = {"task": "student", "teacher": "", "seed": 0, "steps": 1, "data": {}, "model": model}
        network = expression.build(ConfigDict(config).model)
        shapes = jax.eval_shape(
            lambda: network.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.uint8), train=False)
        )
        variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(shapes))
        (folder / "weights.npz").write_bytes(weights.pack(1, variables))
        (folder / "config.json").write_text(json.dumps(config))
        result = {"task": "student", "step": 1, "class_names": ["a", "b", "c"], "metrics": {"dev": {"accuracy": 0.5}}}
        (folder / "result.json").write_text(json.dumps(result))
        return folder / broken

    return write


def _open_run(path: pathlib.Path) -> Any:
    from avemo import predict
    from avemo.runs import reader

    reader.load(path.parent)
    return predict.open_models(str(path.parent))


def samples() -> dict[str, Sample]:
    """The formats by a short name."""
    from avemo.models.pretrained import networks, tf_checkpoint, tfjs, tflite, torch_file
    from avemo.runs import archive, run_folder, weights

    return {
        "pt": Sample("PyTorch `.pt`, zip", _golden("zip.pt"), torch_file.read),
        "pt_stream": Sample("PyTorch `.pt`, older stream", _golden("legacy.pt"), torch_file.read),
        "ckpt": Sample("TensorFlow checkpoint, one file", _golden("v1.ckpt"), tf_checkpoint.read),
        "index": Sample(
            "TensorFlow checkpoint, index and data", _golden("v2.index", "v2.data-00000-of-00001"), tf_checkpoint.read
        ),
        "tfjs": Sample("TensorFlow.js `model.json`", _tfjs, tfjs.read),
        "tflite": Sample("TensorFlow Lite", _tflite, tflite.read),
        "npz": Sample("VGGish `.npz`", _npz("vggish.npz"), networks.SOURCES["vggish"].read),
        "weights": Sample("`weights.npz` of a run", _npz("weights.npz"), weights.read),
        "predictions": Sample("predictions of a run", _predictions, run_folder.read_predictions),
        "config": Sample("`config.json` of a run", _run("config.json"), _open_run),
        "result": Sample("`result.json` of a run", _run("result.json"), _open_run),
        "archive": Sample("archive of a release", _archive, lambda path: archive.read(path.read_bytes(), path.name)),
    }
