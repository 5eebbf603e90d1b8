"""A fabricated demo folder for tests of the report: random curves and traces in the formats of real runs.

Nothing in it was trained or measured. `python tests/helpers/fabricated.py DIR` writes one to look at.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
RUNS = {
    "teacher": ("teacher", {"name": "inception_resnet_v1", "image_size": 80}),
    "student": ("student", {"name": "compact", "image_size": 80}),
    "audio": ("audio", {"name": "vggish", "width": 0.125}),
    "fusion": ("audiovisual", {"fusion": "model_level", "temporal": "gru", "num_classes": 0}),
    "fusion_audio": ("audiovisual", {"fusion": "audio", "temporal": "gru", "num_classes": 0}),
    "fusion_visual": ("audiovisual", {"fusion": "visual", "temporal": "gru", "num_classes": 0}),
}


def smooth(rng: np.random.Generator, length: int, scale: int = 60) -> np.ndarray:
    """Smooth noise `[length, 2]` of unit variance."""
    kernel = np.hanning(2 * scale + 1)
    noise = np.stack([np.convolve(rng.standard_normal(length + 2 * scale), kernel, "valid") for _ in range(2)], -1)
    return noise / noise.std(0)


def gaps(rng: np.random.Generator, length: int, number: int) -> np.ndarray:
    """A mask bool `[length]` with `number` absent stretches."""
    mask = np.ones(length, bool)
    for start in rng.integers(0, length, number):
        mask[start : start + length // 15] = False
    return mask


def traces(rng: np.random.Generator, recordings: int, frames: int, noise: Sequence[float], gates: bool) -> dict:
    """Arrays of `predictions/<split>.npz`: all runs have the same gold, and the error grows with `noise`."""
    gold = np.random.default_rng(7)
    parts: dict[str, list] = {}
    for _ in range(recordings):
        target = (0.3 * smooth(gold, frames)).clip(-1, 1)
        row = {
            "time": np.arange(frames) / 25,
            "prediction": 0.8 * target + 0.3 * np.array(noise) * smooth(rng, frames, 25),
            "target": target,
            "mask": np.arange(frames) > 10,
            "visual_mask": gaps(gold, frames, 2),
            "audio_mask": gaps(gold, frames, 3),
        }
        if gates:
            weight = (0.5 + 0.2 * smooth(rng, frames)[:, 0]).clip(0, 1)
            row["gates"] = np.stack([weight, 1 - weight], -1)
        for name, value in row.items():
            parts.setdefault(name, []).append(value)
    names = np.array([f"dev_{i + 1}" for i in range(recordings)])
    return {
        "recording": names,
        "length": np.full(recordings, frames),
        **{k: np.concatenate(v).astype(bool if "mask" in k else np.float32) for k, v in parts.items()},
    }


def classes(rng: np.random.Generator, items: int, skill: float) -> dict:
    """Arrays of a classifier; a few labels are absent (−1)."""
    label = np.random.default_rng(3).integers(-1, len(CLASSES), items)
    logits = rng.standard_normal((items, len(CLASSES)))
    logits[np.arange(items), label] += skill * (label >= 0)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return {"label": label, "probability": probability.astype(np.float32)}


def history(rng: np.random.Generator, steps: int, metrics: Sequence[str]) -> list[dict]:
    """Lines of `metrics.jsonl`: a falling loss, rising scores, one null."""
    lines = []
    for step in range(20, steps + 1, 20):
        done = step / steps
        loss = 2.2 * np.exp(-2.5 * done) + 0.3 + 0.05 * rng.standard_normal()
        values = {"loss": loss, "ce_loss": 0.7 * loss, "fec_loss": 0.3 * loss, "gradient_norm": 3.0}
        lines.append({"step": step, "split": "train", "wall_time": 1e9 + step, **values})
        lines.append({"step": step, "split": "timing", "wall_time": 1e9 + step, "examples_per_second": 200 + step})
        if step % 60 == 0:
            scores = {m: 0.8 * (1 - np.exp(-4 * done)) + 0.03 * rng.standard_normal() for m in metrics}
            lines.append({"step": step, "split": "dev", "wall_time": 1e9 + step, **scores})
    lines[0]["ce_loss"] = None
    return lines


def write_run(
    folder: pathlib.Path, name: str, *, categorical: bool = False, frames: int = 1000, items: int = 300
) -> None:
    """Writes one finished run folder."""
    task, model = RUNS[name]
    rng = np.random.default_rng(sorted(RUNS).index(name))
    steps, image = 240, task in ("teacher", "student")
    if image:
        metrics = ("accuracy", "uar", "macro_f1", "triplet_accuracy")
        arrays = {"dev": classes(rng, items, 3.0)}
    elif categorical:
        metrics = ("accuracy", "uar", "macro_f1")
        arrays = {"dev": classes(rng, items, 2.0)}
        arrays["dev"]["recording"] = np.array([f"clip{i}" for i in range(items)])
    else:
        metrics = ("ccc_valence", "ccc_arousal", "ccc_mean", "rmse_valence")
        noise = {"fusion_audio": (1.2, 0.5), "fusion_visual": (0.5, 1.1)}.get(name, (0.4, 0.4))
        arrays = {s: traces(rng, 6, frames, noise, name == "fusion") for s in ("dev", "test")}
        if task == "audio":  # windows have no clock
            arrays = {
                "dev": {"prediction": np.zeros((4, 9, 2)), "target": np.zeros((4, 9, 2)), "mask": np.ones((4, 9))}
            }
    run = folder / name
    (run / "predictions").mkdir(parents=True)
    for split, values in arrays.items():
        np.savez_compressed(run / "predictions" / f"{split}.npz", **values)
    config = {"task": task, "steps": steps, "seed": 0, "model": model, "optimizer": {"learning_rate": 1e-3}}
    (run / "config.json").write_text(json.dumps(config))
    lines = history(rng, steps, metrics)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = {
        "task": task,
        "step": steps,
        "evaluated_step": steps - 60,
        "metrics": {split: {m: 0.7 + 0.02 * rng.random() for m in metrics} for split in arrays},
        "data": {"faces" if image else "features": "95214fa8bb65787b"},
        "weights": {"teacher": "0a1b2c3d4e5f6071"} if name == "student" else {},
        "class_names": list(CLASSES) if image or categorical else [],
        "parameters": 166_640,
        "seconds": 48.3,
        "environment": {"avemo": "0.1.0", "jax": "0.10.2", "python": "3.11.7", "devices": 1, "device_kind": "cpu"},
    }
    (run / "result.json").write_text(json.dumps(result))


def write_demo(
    folder: pathlib.Path, *, corpus: str = "synthetic", runs: Sequence[str] = tuple(RUNS), **size: int
) -> None:
    """Writes run folders, `demo.json` and, for the synthetic corpus, `corpus/ceiling.json`."""
    for name in runs:
        write_run(folder, name, categorical=corpus == "real", **size)
    stages = {
        name: {"command": f"python launch.py train --config=configs/demo/x.py --workdir={name}", "seconds": 41.5,
               "skipped": name == "teacher"}
        for name in ("prepare_affectnet", *runs)
    }  # fmt: skip
    notes = {"corpus": corpus, "source": None if corpus == "synthetic" else "data", "seed": 0, "stages": stages}
    (folder / "demo.json").write_text(json.dumps(notes))
    if corpus == "synthetic":
        (folder / "corpus").mkdir()
        limits = {
            d: {"gold_vs_latent": 0.93 - 0.02 * i, "leave_one_rater_out": 0.8}
            for i, d in enumerate(("valence", "arousal"))
        }
        (folder / "corpus" / "ceiling.json").write_text(json.dumps({"delay_seconds": 1.0, "ccc": limits}))


if __name__ == "__main__":
    write_demo(pathlib.Path(sys.argv[1]), corpus=sys.argv[2] if len(sys.argv) > 2 else "synthetic")
