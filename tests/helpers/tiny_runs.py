"""Run folders of untrained networks for `predict` and `export`, small enough to be made in a test."""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from avemo.models import audio_regressor, audiovisual, expression
from avemo.runs import checkpoints, run_folder
from avemo.runs.weights import fingerprint
from avemo.training.state import TrainState

CLASSES = ("neutral", "happy", "sad")
VISUAL = {"name": "compact", "image_size": 32, "num_classes": 3, "width": 0.25, "stages": 1, "last_features": 64}
AUDIO = {"name": "vggish", "width": 0.0625, "fc_dim": 16, "embedding_dim": 16, "num_classes": 0}


def saved(folder: pathlib.Path, config: ConfigDict, variables: dict[str, Any], class_names: tuple[str, ...]) -> str:
    """Writes these variables as the folder of a finished training run."""
    run_folder.prepare_workdir(config, folder)
    state = TrainState(jnp.zeros((), jnp.int32), variables.pop("params"), variables, {}, {})
    with checkpoints.manager(folder) as manager:
        checkpoints.save(manager, 1, state, {}, config, None)
        manager.wait_until_finished()
    result = {"task": config.task, "step": 1, "class_names": list(class_names)}
    (folder / "result.json").write_text(json.dumps(result))
    return str(folder)


def _drawn(init: Callable, seed: int, *example: Any) -> dict[str, Any]:
    """A network's variables, drawn from a seed and their shapes without compiling anything."""
    rng = np.random.default_rng(seed)

    def leaf(path: Any, like: Any) -> np.ndarray:
        name, shape = path[-1].key, like.shape
        if name in ("var", "scale"):
            return rng.uniform(0.8, 1.2, shape).astype(like.dtype)
        return rng.normal(0, 1.4 / np.sqrt(max(np.prod(shape[:-1]), 4)), shape).astype(like.dtype)

    shapes = jax.eval_shape(lambda key: init(key, *example), jax.random.key(seed))
    return dict(jax.tree_util.tree_map_with_path(leaf, shapes))


def visual(folder: pathlib.Path, seed: int = 0, **model: Any) -> str:
    """A student that answers with `CLASSES`."""
    config = ConfigDict(
        {"task": "student", "teacher": "", "seed": seed, "steps": 1, "data": {}, "model": {**VISUAL, **model}}
    )
    net, size = expression.build(config.model), config.model.image_size
    init = functools.partial(net.init, train=False)
    return saved(folder, config, _drawn(init, seed, np.zeros((1, size, size, 3), np.uint8)), CLASSES)


def audio(folder: pathlib.Path, seed: int = 1, **model: Any) -> str:
    """An audio encoder that answers with valence and arousal."""
    config = ConfigDict(
        {"task": "audio", "seed": seed, "steps": 1, "data": {"delay": 0.0, "windows": 1}, "model": {**AUDIO, **model}}
    )
    net = audio_regressor.build(config.model)
    init = functools.partial(net.init, train=False)
    return saved(folder, config, _drawn(init, seed, np.zeros((1, 96, 64), np.float32)), ())


def fusion(
    folder: pathlib.Path,
    visual: str,
    audio: str,
    faces: dict[str, Any] | None = None,
    seed: int = 2,
    dims: dict[str, int] | None = None,
    **model: Any,
) -> str:
    """A fusion run with these two encoders; `dims` are the lengths of the features it reads."""
    fields = {"fusion": "gmu", "fusion_args": {"features": 8}, "temporal": "gru", "temporal_args": {"features": 8}}
    fields |= {"num_classes": 0, "dropout": 0.0, **model}
    config = ConfigDict(
        {
            "task": "audiovisual",
            "seed": seed,
            "steps": 1,
            "data": {"features": "", "delay": 1.0, "sequence_length": 4},
            "model": fields,
        }
    )
    net, dims = audiovisual.build(config.model), dims or {"visual": 128, "audio": AUDIO["embedding_dim"]}
    rng = np.random.default_rng(seed)
    example = [np.zeros((1, 4, dims[m]), np.float32) for m in ("audio", "visual")]
    masks = [np.ones((1, 4), bool)] * 3
    variables = _drawn(functools.partial(net.init, train=False), seed, *example, *masks)
    constants = {}
    for modality, dim in dims.items():
        constants[f"{modality}_mean"] = rng.normal(0, 0.1, dim).astype(np.float32)
        constants[f"{modality}_std"] = rng.uniform(0.5, 1.5, dim).astype(np.float32)
    names = CLASSES[: config.model.num_classes]
    saved(folder, config, {"params": variables["params"], "constants": constants}, names)
    card = {
        m: {"workdir": w, "fingerprint": fingerprint(checkpoints.load(w)[2])}
        for m, w in (("visual", visual), ("audio", audio))
    }
    card |= {"faces": faces or {}, "fps": 25.0}
    (folder / "encoders.json").write_text(json.dumps(card))
    return str(folder)
