"""References for the audio networks, recurrences and losses, as functions from arrays to arrays.

PyTorch, torchvggish and LiteRT are other people's code; RKD and DKD follow their authors' formulas in PyTorch. Inputs
and weights come from a fixed seed, so a golden file holds outputs only.
"""

import functools
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from avemo.models.pretrained import networks, tflite
from benchmarks.parity import references, weights

Arrays = dict[str, np.ndarray]


def recurrent(kind: str, params: dict[str, Any], x: np.ndarray, probe: np.ndarray) -> tuple[Arrays, Arrays]:
    """Runs `torch.nn.GRU` or `LSTM` with our parameters.

    Args:
      kind: "gru" or "lstm".
      params: parameters of our cell, {"ir": {"kernel", "bias"}, …}.
      x: [B, T, D].
      probe: [B, T, H], the gradient of the loss with respect to the hidden states.

    Returns:
      {"hidden" [B, T, H], "carry" [B, H]} and the gradients, by our names ("x", "ir/kernel", …).
    """
    gates = {"gru": "rzn", "lstm": "ifgo"}[kind]
    size = params["h" + gates[0]]["kernel"].shape[0]
    module = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[kind](x.shape[-1], size, batch_first=True)

    def joined(side: str, leaf: str) -> torch.Tensor:
        parts = [params[side + g].get(leaf, np.zeros(size, np.float32)) for g in gates]
        return torch.tensor(np.concatenate([p.T if leaf == "kernel" else p for p in parts]))

    for side, suffix in (("i", "ih"), ("h", "hh")):
        getattr(module, f"weight_{suffix}_l0").data = joined(side, "kernel")
        getattr(module, f"bias_{suffix}_l0").data = joined(side, "bias")
    inputs = torch.tensor(x, requires_grad=True)
    hidden, carry = module(inputs)
    (hidden * torch.tensor(probe)).sum().backward()
    gradients = {"x": inputs.grad.numpy()}
    for side, suffix in (("i", "ih"), ("h", "hh")):
        kernels = getattr(module, f"weight_{suffix}_l0").grad.numpy().reshape(len(gates), size, -1)
        biases = getattr(module, f"bias_{suffix}_l0").grad.numpy().reshape(len(gates), size)
        for i, gate in enumerate(gates):
            gradients[f"{side}{gate}/kernel"] = kernels[i].T
            if "bias" in params[side + gate]:
                gradients[f"{side}{gate}/bias"] = biases[i]
    last = carry[0] if kind == "lstm" else carry
    return {"hidden": hidden.detach().numpy(), "carry": last[0].detach().numpy()}, gradients


def place_torchvggish(name: str, value: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Maps torchvggish's convolutions (`features.N`) and dense layers (`embeddings.N`) to our path and layout."""
    part, number, leaf = name.split(".")
    layers = {
        "features": {0: "conv1", 3: "conv2", 6: "conv3_1", 8: "conv3_2", 11: "conv4_1", 13: "conv4_2"},
        "embeddings": {0: "fc1_1", 2: "fc1_2", 4: "fc2"},
    }
    if leaf == "weight":
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    return ("params", layers[part][int(number)], {"weight": "kernel", "bias": "bias"}[leaf]), value


def vggish(windows: np.ndarray, seed: int) -> np.ndarray:
    """Runs torchvggish's network, which ends in ReLU, with random weights: windows [B, 96, 64] -> [B, 128]."""
    module = importlib.import_module("torchvggish.torchvggish")
    network = module.VGG(module.make_layers(), postprocess=False).eval()
    references.load(network, weights.torch_state(network.state_dict(), place_torchvggish, seed))
    with torch.no_grad():
        return network(torch.tensor(windows)[:, None]).numpy()


def log_mel(samples: np.ndarray) -> np.ndarray:
    """AudioSet's `mel_features.py`, as torchvggish ships it: [N] at 16 kHz -> [M, 64]."""
    features = importlib.import_module("torchvggish.mel_features")
    p = importlib.import_module("torchvggish.vggish_params")
    return features.log_mel_spectrogram(
        samples,
        audio_sample_rate=p.SAMPLE_RATE,
        log_offset=p.LOG_OFFSET,
        window_length_secs=p.STFT_WINDOW_LENGTH_SECONDS,
        hop_length_secs=p.STFT_HOP_LENGTH_SECONDS,
        num_mel_bins=p.NUM_MEL_BINS,
        lower_edge_hertz=p.MEL_MIN_HZ,
        upper_edge_hertz=p.MEL_MAX_HZ,
    )


def yamnet_litert(file: Path, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs the file in LiteRT on 15,600 samples; returns its log-mel [96, 64] and embedding [1024]."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        str(file),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], samples[None].astype(np.float32))
    interpreter.invoke()
    embedding = next(t for t in interpreter.get_tensor_details() if t["name"].endswith("global_average_pooling2d/Mean"))
    return interpreter.get_tensor(interpreter.get_output_details()[1]["index"]), interpreter.get_tensor(
        embedding["index"]
    )[0]


def yamnet_float(file: Path, windows: np.ndarray) -> np.ndarray:
    """Runs the file's graph with dequantised constants in PyTorch, in float32: [B, 96, 64] -> [B, 1024]."""
    constants = tflite.read(file)
    kernels, biases = {}, {}
    for name, value in constants.items():
        place = networks.place_yamnet(name, value)
        if place is not None:
            (kernels if place[0][-1] == "kernel" else biases)[place[0][1]] = value
    x = torch.tensor(windows)[:, None]
    order = ["layer1", *(f"layer{n}_{part}" for n in range(2, 15) for part in ("depthwise", "pointwise"))]
    halving = {"layer1", "layer3_depthwise", "layer5_depthwise", "layer7_depthwise", "layer13_depthwise"}
    for name in order:
        depthwise = name.endswith("depthwise")
        # TFLite stores [O, H, W, I], and [1, H, W, C] for depthwise kernels.
        kernel = (
            torch.tensor(kernels[name]).permute(3, 0, 1, 2)
            if depthwise
            else torch.tensor(kernels[name]).permute(0, 3, 1, 2)
        )
        stride = 2 if name in halving else 1
        x = _same(x, kernel.shape[-1], stride)
        x = F.relu(F.conv2d(x, kernel, torch.tensor(biases[name]), stride, groups=x.shape[1] if depthwise else 1))
    return x.mean((2, 3)).numpy()


def _same(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """TensorFlow's SAME padding: an odd pixel goes to the end."""
    pads = []
    for size in reversed(x.shape[2:]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def distillation(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> Arrays:
    """RKD, DKD and KD by their authors' formulas: {name: value, name_gradient: gradient of `student`}."""
    formulas = {
        "rkd_distance": _rkd_distance,
        "rkd_angle": _rkd_angle,
        "dkd": functools.partial(_dkd, labels=torch.tensor(labels), alpha=1.0, beta=8.0, temperature=4.0),
        "kd": functools.partial(_kd, temperature=4.0),
    }
    out = {}
    for name, formula in formulas.items():
        s = torch.tensor(student, requires_grad=True)
        value = formula(s, torch.tensor(teacher))
        value.backward()
        out[name], out[f"{name}_gradient"] = value.detach().numpy(), s.grad.numpy()
    return out


def _kd(s: torch.Tensor, t: torch.Tensor, temperature: float) -> torch.Tensor:
    target = F.softmax(t / temperature, 1)
    return F.kl_div(F.log_softmax(s / temperature, 1), target, reduction="batchmean") * temperature**2


def _dkd(
    s: torch.Tensor, t: torch.Tensor, labels: torch.Tensor, alpha: float, beta: float, temperature: float
) -> torch.Tensor:
    """arXiv 2203.08679, equations 5 to 8; splits and renormalises probabilities, not logarithms."""
    ps, pt = F.softmax(s / temperature, 1), F.softmax(t / temperature, 1)
    chosen = F.one_hot(labels, s.shape[1]).bool()
    binary = [torch.stack([p[chosen], 1 - p[chosen]], 1) for p in (ps, pt)]
    others = [(p[~chosen] / (1 - p[chosen]).repeat_interleave(s.shape[1] - 1)).reshape(len(s), -1) for p in (ps, pt)]
    target, rest = (F.kl_div(q.log(), p, reduction="batchmean") for q, p in (binary, others))
    return (alpha * target + beta * rest) * temperature**2


def _rkd_distance(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """arXiv 1904.05068, equations 3 to 5; distances are divided by their mean over pairs; Huber over all pairs."""

    def relative(x: torch.Tensor) -> torch.Tensor:
        off_diagonal = ~torch.eye(len(x), dtype=torch.bool)
        d = torch.zeros(len(x), len(x)).masked_scatter(off_diagonal, torch.cdist(x, x)[off_diagonal])
        return d / d[off_diagonal].mean()

    return F.smooth_l1_loss(relative(s), relative(t))


def _rkd_angle(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """arXiv 1904.05068, equations 6 to 8; the cosine at each vertex; Huber over all triples."""

    def cosines(x: torch.Tensor) -> torch.Tensor:
        unit = F.normalize(x[None] - x[:, None], dim=2)
        return unit @ unit.transpose(1, 2)

    return F.smooth_l1_loss(cosines(s), cosines(t))
