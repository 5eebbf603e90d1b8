"""Parity of the audio networks and features, the recurrences, CCC and the distillation losses.

`python -m benchmarks.parity.audio` writes the references' outputs to tests/golden, so that the test suite checks the
same without PyTorch.
"""

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avemo import losses, metrics
from avemo.models import pretrained
from avemo.models.temporal import GRU, LSTM
from avemo.models.vggish import VGGish
from avemo.models.yamnet import VGGISH_OFFSET, YAMNET_OFFSET, YAMNet
from benchmarks.parity import weights
from benchmarks.parity.table import Row, difference
from media import audio

OUTPUT, GRADIENT = 1e-4, 1e-3
SEED = 0
GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
CELLS = {"gru": GRU, "lstm": LSTM}


def sequences() -> tuple[np.ndarray, np.ndarray]:
    """Inputs of the recurrences [3, 17, 5], and the gradient with respect to their hidden states [3, 17, 8]."""
    rng = np.random.default_rng(SEED)
    return rng.standard_normal((3, 17, 5)).astype(np.float32), rng.standard_normal((3, 17, 8)).astype(np.float32)


def voice(seconds: float = 1.2) -> np.ndarray:
    """A synthetic voice at 16 kHz, float32 [N] in [−1, 1]: gliding harmonics, noise, a pause."""
    rng = np.random.default_rng(SEED)
    t = np.arange(int(16000 * seconds)) / 16000
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(3 * t)) / 16000
    tone = sum(np.sin(k * phase) / k for k in range(1, 20)) * (0.2 + 0.15 * np.sin(9 * t))
    return ((tone + 0.01 * rng.standard_normal(len(t))) * ((t < 0.5) | (t > 0.6))).astype(np.float32)


def windows(count: int = 2) -> np.ndarray:
    """Log-mel windows [count, 96, 64] of the synthetic voice."""
    rows = audio.log_mel(voice())
    return np.stack([rows[10 * i : 10 * i + 96] for i in range(count)])


def embeddings() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs of a student and of a teacher, each [12, 6], and labels [12]."""
    rng = np.random.default_rng(SEED)
    student, teacher = rng.standard_normal((2, 12, 6)).astype(np.float32)
    return student, 2 * teacher, rng.integers(0, 6, 12)


def run_cell(kind: str, params: Any, x: np.ndarray, probe: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs our cell; returns outputs and gradients under the names that `audio_references.recurrent` uses."""
    mask = jnp.ones(x.shape[:2], bool)

    def loss(params: Any, x: jax.Array) -> Any:
        hidden, carry = CELLS[kind](probe.shape[-1]).apply({"params": params}, x, mask)
        return (hidden * probe).sum(), {"hidden": hidden, "carry": carry[1] if kind == "lstm" else carry}

    (of_params, of_x), outputs = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, x)
    gradients = {f"{module}/{leaf}": g for module, leaves in of_params.items() for leaf, g in leaves.items()}
    return outputs, {"x": of_x, **gradients}


def cell_params(kind: str, x: np.ndarray, size: int) -> Any:
    """Random parameters of our cell."""
    return weights.variables(CELLS[kind](size), x, jnp.ones(x.shape[:2], bool), seed=SEED)["params"]


def recurrent_rows() -> list[Row]:
    """Compares values and gradients of GRU and LSTM."""
    import torch

    from benchmarks.parity import audio_references

    x, probe = sequences()
    rows = []
    for kind in CELLS:
        params = cell_params(kind, x, probe.shape[-1])
        ours, theirs = run_cell(kind, params, x, probe), audio_references.recurrent(kind, params, x, probe)
        for what, index, tolerance in (("values", 0, OUTPUT), ("gradients", 1, GRADIENT)):
            assert set(ours[index]) == set(theirs[index])
            worst = max(difference(ours[index][k], v) for k, v in theirs[index].items())
            name = f"{kind.upper()}, {what} ({len(theirs[index])} tensors)"
            rows.append(Row(name, f"torch.nn.{kind.upper()} {torch.__version__}", worst, tolerance))
    return rows


def vggish_rows() -> list[Row]:
    """Compares VGGish under the same random weights, including torchvggish's last ReLU, and the log-mel."""
    from benchmarks.parity import audio_references, references

    version = references.version("torchvggish")
    network = VGGish(final_activation="relu")
    variables = weights.variables(network, jnp.zeros((1, 96, 64)), seed=SEED)
    ours = jax.jit(network.apply)(variables, windows())
    rows = [
        Row(
            "VGGish, 96x64 to 128 (12,288 → 4,096 in H, W, C order)",
            version,
            difference(ours, audio_references.vggish(windows(), SEED)),
            OUTPUT,
        )
    ]
    for name, samples in _sounds():
        mine, theirs = audio.log_mel(samples), audio_references.log_mel(samples)
        worst = float(np.abs(mine - theirs).max())
        rows.append(Row(f"log-mel of {name}", version, worst, OUTPUT, "absolute, in ln units"))
    return rows


def _data() -> Path:
    return Path(os.environ.get("AVEMO_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def _sounds() -> list[tuple[str, np.ndarray]]:
    found = [("a synthetic voice", voice())]
    for name, pattern in (("RAVDESS", "ravdess_speech/Actor_01/*"), ("GRID", "grid/*.mpg")):
        files = sorted(_data().glob(pattern))[:3]
        if files:
            tracks = [np.concatenate([part for _, part in audio.decode(file)]) for file in files]
            found.append((f"{len(files)} {name} takes", np.concatenate(tracks)))
    return found


def _at_yamnets_offset(log_mel: np.ndarray) -> np.ndarray:
    return np.log(np.exp(log_mel) - VGGISH_OFFSET + YAMNET_OFFSET)


def yamnet_rows() -> list[Row]:
    """Compares the converted YAMNet with the file's own graph in float32 and with LiteRT."""
    from benchmarks.parity import audio_references, references

    file = _data() / "weights" / "yamnet.tflite"
    version = references.version("ai-edge-litert")
    if not file.is_file():
        return [Row("YAMNet embedding", version, float("nan"), OUTPUT, f"no {file}: set AVEMO_DATA")]
    samples = voice()[:15600]
    mel, embedding = audio_references.yamnet_litert(file, samples)
    with tempfile.TemporaryDirectory() as folder:
        pretrained.convert("yamnet", file, Path(folder) / "yamnet")
        loaded = pretrained.load_pretrained(Path(folder) / "yamnet")
    variables = {"params": loaded.params, "batch_stats": loaded.batch_stats}
    run = jax.jit(functools.partial(YAMNet(input_offset=YAMNET_OFFSET).apply, train=False))
    ours = np.asarray(run(variables, mel[None]))
    graph = audio_references.yamnet_float(file, mel[None])
    front_end = np.abs(_at_yamnets_offset(audio.log_mel(samples)[:96]) - mel)
    cosine = float(1 - ours[0] @ embedding / np.linalg.norm(ours) / np.linalg.norm(embedding))
    return [
        Row(
            "YAMNet embedding, converted file",
            "the file's dequantised graph in torch",
            difference(ours, graph),
            OUTPUT,
        ),
        Row(
            "YAMNet embedding, converted file, cosine distance",
            version,
            cosine,
            2e-2,
            "LiteRT quantises activations to 8 bits in every layer; ours are float32. Max abs diff "
            f"{difference(ours[0], embedding):.3f}; LiteRT differs from the dequantised graph by "
            f"{difference(graph[0], embedding):.3f}",
        ),
        Row(
            "log-mel of a synthetic voice, median abs diff",
            f"YAMNet's own front end, {version}",
            float(np.median(front_end)),
            5e-2,
            f"at YAMNet's offset of 0.001; its int8 DFT loses quiet bands: up to {front_end.max():.1f} ln units",
        ),
    ]


def ccc_rows() -> list[Row]:
    """Compares the CCC of the metric and of the loss."""
    import audmetric
    import torch

    from benchmarks.parity import references

    rng = np.random.default_rng(SEED)
    y = rng.standard_normal((300, 2))
    x = 0.7 * y + 0.4 * rng.standard_normal((300, 2)) + 0.1
    state = metrics.trace_moments(x, y)
    theirs = np.array([audmetric.concordance_cc(y[:, k], x[:, k]) for k in range(2)])
    loss = float(losses.ccc_loss(jnp.asarray(x[None], jnp.float32), jnp.asarray(y[None], jnp.float32)))
    n, mean_x, mean_y, sxx, syy, sxy = np.moveaxis(state, -1, 0)
    unbiased = 2 * sxy / (n - 1) / ((sxx + syy) / (n - 1) + (mean_x - mean_y) ** 2)
    other = references.torchmetrics_ccc()(torch.tensor(x), torch.tensor(y)).numpy()
    return [
        Row("CCC metric (moments)", references.version("audmetric"), difference(metrics.ccc(state), theirs), 1e-6),
        Row("CCC loss, float32", references.version("audmetric"), abs(1 - loss - theirs.mean()), 1e-5),
        Row(
            "CCC from our moments, divided by n-1 as torchmetrics does",
            references.version("torchmetrics"),
            difference(unbiased, other),
            1e-6,
            f"with our convention (1/n) the difference is {difference(metrics.ccc(state), other):.1e}",
        ),
    ]


def distillation_rows() -> list[Row]:
    """Compares values and gradients of RKD, DKD and KD."""
    from benchmarks.parity import audio_references

    student, teacher, labels = embeddings()
    theirs = audio_references.distillation(student, teacher, labels)
    ours = {
        "rkd_distance": losses.rkd_distance,
        "rkd_angle": losses.rkd_angle,
        "dkd": functools.partial(losses.dkd, labels=labels, alpha=1.0, beta=8.0, temperature=4.0),
        "kd": functools.partial(losses.kd, temperature=4.0),
    }
    rows = []
    for name, loss in ours.items():
        value, gradient = jax.value_and_grad(lambda s, loss=loss: loss(s, jnp.asarray(teacher)))(jnp.asarray(student))
        rows.append(Row(f"{name} loss", "authors' formula in torch", difference(value, theirs[name]), OUTPUT))
        rows.append(
            Row(
                f"{name} gradient",
                "authors' formula in torch",
                difference(gradient, theirs[f"{name}_gradient"]),
                GRADIENT,
            )
        )
    return rows


def rows() -> list[Row]:
    """Returns all rows of this group."""
    return [*recurrent_rows(), *vggish_rows(), *yamnet_rows(), *ccc_rows(), *distillation_rows()]


def write_goldens() -> None:
    """Writes the references' outputs for the test suite."""
    from benchmarks.parity import audio_references

    GOLDEN.mkdir(exist_ok=True)
    student, teacher, labels = embeddings()
    np.savez_compressed(
        GOLDEN / "losses.npz",
        student=student,
        teacher=teacher,
        labels=labels,
        **audio_references.distillation(student, teacher, labels),
    )
    x, probe = sequences()
    arrays = {}
    for kind in CELLS:
        outputs, gradients = audio_references.recurrent(kind, cell_params(kind, x, probe.shape[-1]), x, probe)
        arrays |= {f"{kind}/{k}": v for k, v in outputs.items()}
        arrays |= {f"{kind}/gradient/{k}": v for k, v in gradients.items()}
    np.savez_compressed(GOLDEN / "recurrent.npz", **arrays)
    mel = windows(1)
    np.savez_compressed(
        GOLDEN / "audio_networks.npz",
        log_mel=audio_references.log_mel(voice())[:24].astype(np.float32),
        windows=mel,
        vggish=audio_references.vggish(mel, SEED),
    )
    file = _data() / "weights" / "yamnet.tflite"
    if file.is_file():
        np.savez_compressed(
            GOLDEN / "yamnet.npz", embedding=audio_references.yamnet_float(file, _at_yamnets_offset(mel))
        )


if __name__ == "__main__":
    write_goldens()
