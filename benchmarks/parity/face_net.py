"""The converted MobileNet-v1 against the TF.js face net's own graph, interpreted in PyTorch node by node.

Needs the published `faceres-deep.json` and the clips (`AVEMO_DATA`); without them, the row says so.
`python -m benchmarks.parity.face_net` writes the golden file.
"""

import base64
import os
import tempfile
from pathlib import Path

import av
import cv2
import jax
import numpy as np
import torch
import torch.nn.functional as F

from avemo.models import pretrained
from avemo.models.mobilenet import BGR_MEAN, MobileNetV1
from avemo.models.pretrained import tfjs
from benchmarks.parity import visual_cases
from benchmarks.parity.table import Row, difference
from benchmarks.parity.visual_cases import faces

DATA = Path(os.environ.get("AVEMO_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
GOLDEN = visual_cases.GOLDEN.with_name("face_net.npz")
GRAPH = "weights/faceres-deep.json"
DETECTOR = "weights/face_detection_yunet_2026may.onnx"
# Two takes of one person (sad, surprised), and another person.
SAME, OTHER = ("ravdess_clips/01-01-04-*.mp4", "ravdess_clips/01-01-08-*.mp4"), "grid/*.mpg"
REFERENCE = "its TF.js graph, interpreted"
DESCRIPTOR = "global_pooling/Mean"
SIZE = 224


def interpret(path: Path, images: np.ndarray, result: str = DESCRIPTOR) -> np.ndarray:
    """Returns the value of the node `result` for `images` [B, H, W, 3], scaled as the graph expects them."""
    values = {name: torch.tensor(value) for name, value in tfjs.read(path).items()}
    for node in tfjs.nodes(path):
        name, inputs = node["name"], [values[i.split(":")[0]] for i in node.get("input", [])]
        values[name] = torch.tensor(images) if node["op"] == "Placeholder" else _run(node, inputs)
        if name == result:
            return values[name].numpy()
    raise KeyError(result)


def _run(node: dict, inputs: list[torch.Tensor]) -> torch.Tensor:
    match node["op"]:
        case "Conv2D" | "DepthwiseConv2dNative":
            return _convolution(node, *inputs)
        case "Add":
            return inputs[0] + inputs[1]
        case "Mul":
            return inputs[0] * inputs[1]
        case "Relu":
            return inputs[0].clamp(min=0)
        case "Minimum":
            return torch.minimum(*inputs)
        case "Maximum":
            return torch.maximum(*inputs)
        case "Mean":
            return inputs[0].mean(dim=tuple(inputs[1].tolist()))
    raise NotImplementedError(node["op"])


def _convolution(node: dict, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    if base64.b64decode(node["attr"]["padding"]["s"]) != b"SAME":
        raise NotImplementedError("padding")
    stride = int(node["attr"]["strides"]["list"]["i"][1])
    depthwise = node["op"] == "DepthwiseConv2dNative"
    # HWC1 -> C1HW for depthwise, else HWIO -> OIHW
    weight = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
    pads = []
    for axis in (2, 1):  # F.pad starts from the last axis
        size, window = x.shape[axis], kernel.shape[axis - 1]
        total = max((-(-size // stride) - 1) * stride + window - size, 0)
        pads += [total // 2, total - total // 2]
    x = F.pad(x.permute(0, 3, 1, 2), pads)
    return F.conv2d(x, weight, stride=stride, groups=x.shape[1] if depthwise else 1).permute(0, 2, 3, 1)


def face(path: Path) -> np.ndarray:
    """Returns the face in the tenth frame of a video, [SIZE, SIZE, 3] uint8 RGB."""
    with av.open(str(path)) as video:
        frames = [frame.to_ndarray(format="bgr24") for _, frame in zip(range(10), video.decode(video=0), strict=False)]
    frame = frames[-1]
    detector = cv2.FaceDetectorYN.create(str(DATA / DETECTOR), "", frame.shape[1::-1])
    x, y, width, height = detector.detect(frame)[1][0][:4]
    side, x, y = 1.2 * max(width, height), x + width / 2, y + height / 2
    crop = cv2.getRectSubPix(frame, (int(side), int(side)), (float(x), float(y)))
    return cv2.resize(crop, (SIZE, SIZE), interpolation=cv2.INTER_AREA)[..., ::-1].copy()


def rows() -> list[Row]:
    """Compares the descriptor with the graph's, and checks that it tells one person from another."""
    if not (DATA / GRAPH).is_file():
        return [Row("MobileNet-v1 face net", REFERENCE, float("nan"), 1e-4, f"no {DATA / GRAPH}: set AVEMO_DATA")]
    images = np.stack([face(next(iter(sorted(DATA.glob(pattern))))) for pattern in (*SAME, OTHER)])
    with tempfile.TemporaryDirectory() as folder:
        pretrained.convert("faceres", DATA / GRAPH, Path(folder) / "faceres")
        weights = pretrained.load_pretrained(Path(folder) / "faceres")
    variables = {"params": weights.params, "batch_stats": weights.batch_stats}
    ours = np.asarray(jax.jit(lambda v, x: MobileNetV1().apply(v, x, False).mean(axis=(1, 2)))(variables, images))
    theirs = interpret(DATA / GRAPH, images[..., ::-1].astype(np.float32) - np.array(BGR_MEAN, np.float32))
    unit = ours / np.linalg.norm(ours, axis=-1, keepdims=True)
    same, other = float(unit[0] @ unit[1]), float(max(unit[0] @ unit[2], unit[1] @ unit[2]))
    return [
        Row("MobileNet-v1 face net, 1024-d descriptor", REFERENCE, difference(ours, theirs), 1e-4),
        Row(
            "MobileNet-v1 face net, identity: cosine between persons less that between takes of one",
            "two RAVDESS takes, one GRID face",
            other - same,
            -0.1,
            f"same {same:.2f}, other {other:.2f}; the difference must not exceed -0.1",
        ),
    ]


def write_goldens() -> None:
    """Writes the graph's descriptors of two synthetic images, for a test with the weights but without PyTorch."""
    images = faces(2, 96)
    descriptors = interpret(DATA / GRAPH, images[..., ::-1] - np.array(BGR_MEAN, np.float32))
    np.savez_compressed(GOLDEN, descriptor=descriptors)


if __name__ == "__main__":
    write_goldens()
