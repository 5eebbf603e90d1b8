"""A task and its training state as shapes: from a config's numbers, with no data, no weights and no device."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avemo import configuration
from avemo.data.examples import MEL_ROWS
from avemo.models import audio_regressor
from avemo.models import audiovisual as fusion_models
from avemo.models import expression as expression_models
from avemo.runs import checkpoints, recorded_encoders
from avemo.tasks import TASKS, TrainState, audio, audiovisual, end_to_end, expression
from avemo.tasks.base import Task
from avemo.training import optimizer
from media.errors import UserError, unknown

# What `launch.py extract` writes of the paper's encoders: the face descriptor and VGGish's embedding.
_FEATURES = {"visual": 128, "audio": 128}
_PAPER = pathlib.Path(__file__).parents[2] / "configs" / "paper"
_IMAGES = {"triplets": 3}  # an example
_IMAGE_PARTS = ("faces", "triplets", "unlabelled")


def _array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def batch_sizes(config: ConfigDict) -> dict[str, int]:
    """The global batch size of each part that the config's task reads."""
    parts = _IMAGE_PARTS if TASKS[config.task] == "expression" else tuple(config.data.batch)
    return {part: config.data.batch[part] for part in parts if config.data.batch.get(part)}


def batch(config: ConfigDict, sizes: dict[str, int]) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Shapes and dtypes of a training batch `{part: {field: [B_part, ...]}}`, from the config's numbers alone.

    The same fields that `avemo.data.pipeline` and `avemo.data.features` build from shards
    (tests/avemo/aot/test_aot.py compares them).
    """
    if config.task == "end_to_end":
        return {part: _frame_spec(config, size) for part, size in sizes.items()}
    return {part: _PARTS[part](config, size) for part, size in sizes.items()}


def padded(batch: dict[str, dict[str, Any]], multiple: int) -> dict[str, dict[str, Any]]:
    """What `avemo.data.padding.pad_batch` makes of the shapes of a batch: rows to a multiple, and their `weight`."""
    out = {}
    for name, part in batch.items():
        size = next(iter(part.values())).shape[0]
        rows = size + -size % multiple
        out[name] = {field: _array(rows, *x.shape[1:], dtype=x.dtype) for field, x in part.items()}
        if rows != size:
            out[name]["weight"] = _array(rows)
    return out


def _face_spec(config: ConfigDict, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    side, scalar = config.model.image_size, _array(size)
    return {
        "image": _array(size, side, side, 3, dtype=jnp.uint8),
        "label": _array(size, dtype=jnp.int32),
        "votes": _array(size, config.model.num_classes),
        "valence": scalar,
        "arousal": scalar,
    }


def _triplet_spec(config: ConfigDict, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    side = config.model.image_size
    return {"images": _array(size, 3, side, side, 3, dtype=jnp.uint8), "type": _array(size, dtype=jnp.int32)}


def _clip_spec(config: ConfigDict, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    count = config.data.windows
    return {
        "windows": _array(size, count, MEL_ROWS, 64),
        "targets": _array(size, count, 2),
        "mask": _array(size, count, dtype=jnp.bool_),
        "target_mask": _array(size, count, dtype=jnp.bool_),
        "label": _array(size, dtype=jnp.int32),
    }


def _sequence_spec(config: ConfigDict, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    length, raters = config.data.sequence_length, config.model.get("num_raters") or 0
    masks = ("visual_mask", "audio_mask", "rater_mask", "target_mask", "mask")
    return {
        **{modality: _array(size, length, width) for modality, width in _FEATURES.items()},
        **{name: _array(size, length, dtype=jnp.bool_) for name in masks},
        "raters": _array(size, length, raters, 2),
        "targets": _array(size, length, 2),
        "label": _array(size, dtype=jnp.int32),
    }


def _frame_spec(config: ConfigDict, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    fusion, encoders = _end_to_end_configs(config)
    length, side = config.data.sequence_length, encoders["visual"].model.image_size
    rows = _sequence_spec(ConfigDict({"data": config.data.to_dict(), "model": fusion.model.to_dict()}), size)
    return {
        **{name: spec for name, spec in rows.items() if name not in _FEATURES},
        "image": _array(size, length, side, side, 3, dtype=jnp.uint8),
        "windows": _array(size, length, MEL_ROWS, 64),
    }


def _end_to_end_configs(config: ConfigDict) -> tuple[ConfigDict, dict[str, ConfigDict]]:
    """The configs of the fusion run and of its encoders; where the config names no run, the paper's."""
    fusion, encoders = _end_to_end_runs(config)
    dtype = config.model.get("dtype")
    made = {modality: configuration.in_dtype(run, dtype) for modality, run in encoders.items()}
    return configuration.in_dtype(fusion, dtype), made


def _end_to_end_runs(config: ConfigDict) -> tuple[ConfigDict, dict[str, ConfigDict]]:
    if not config.fusion:
        fusion, visual, sound = (
            configuration.load(str(_PAPER / f"{name}.py")) for name in ("fusion", "student", "audio")
        )
        return fusion, {"visual": visual, "audio": sound}
    fusion, _, _ = checkpoints.load(config.fusion)
    found = recorded_encoders.resolve(config.fusion, fusion)
    paths = {modality: getattr(found, modality) for modality in _FEATURES}
    if None in paths.values():
        raise UserError(f"fusion {config.fusion} has one encoder only: compiling it end to end takes both.")
    return fusion, {modality: checkpoints.load(path)[0] for modality, path in paths.items()}


_PARTS = {
    "faces": _face_spec,
    "unlabelled": _face_spec,
    "triplets": _triplet_spec,
    "clips": _clip_spec,
    "sequences": _sequence_spec,
}


def task(config: ConfigDict, sizes: dict[str, int]) -> Task:
    """The task without data, weights or input pipeline: its own loss, shapes in place of arrays."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    constants: Any = {}
    if config.task not in TASKS:
        raise unknown("task", config.task, TASKS)
    if config.task == "audio":
        model = audio_regressor.build(config.model)
        inputs = (_array(1, MEL_ROWS, 64),)
        forward, criterion = functools.partial(audio.forward, model), functools.partial(audio.criterion, config)
    elif config.task == "audiovisual":
        model = fusion_models.build(config.model)
        spec = _sequence_spec(config, 1)
        inputs = tuple(spec[k] for k in ("audio", "visual", "audio_mask", "visual_mask", "mask"))
        forward = functools.partial(audiovisual.forward, model)
        criterion = functools.partial(audiovisual.criterion, config, "sequences")
    elif config.task == "end_to_end":
        return _end_to_end_task(config, sizes, key)
    else:
        model = expression_models.build(config.model)
        inputs = (_array(1, config.model.image_size, config.model.image_size, 3, dtype=jnp.uint8),)
        teacher = None
        if config.task == "student":
            teacher, constants = _abstract_teacher(config, model, key, inputs)
        forward = functools.partial(expression.forward, model, teacher)
        criterion = functools.partial(expression.criterion, config, teacher is not None)
    variables = _abstract_variables(model, key, inputs)
    if config.task == "audiovisual":
        variables = {"params": variables["params"], "constants": _standardisation()}
    examples = sum(n * _IMAGES.get(part, 1) for part, n in sizes.items())
    examples *= config.data.windows if config.task == "audio" else 1
    return _task(config, variables, (forward, criterion), examples, constants)


def _task(config: ConfigDict, variables: Any, parts: tuple[Callable, Callable], examples: int, constants: Any) -> Task:
    forward, criterion = parts
    return Task(
        name=config.task,
        init=lambda _: variables,
        forward=forward,
        criterion=criterion,
        batches=None,
        records=None,
        examples=examples,
        predict=None,
        evaluate=None,
        eval_splits=(),
        constants=constants,
    )


def _standardisation() -> dict[str, jax.ShapeDtypeStruct]:
    return {f"{modality}_{moment}": _array(n) for modality, n in _FEATURES.items() for moment in ("mean", "std")}


def _end_to_end_task(config: ConfigDict, sizes: dict[str, int], key: Any) -> Task:
    fusion_config, encoders = _end_to_end_configs(config)
    settings = ConfigDict({**config.to_dict(), "model": fusion_config.model.to_dict()})
    fusion = fusion_models.build(fusion_config.model)
    parts = {
        "fusion": task(fusion_config, {"sequences": 1}),
        "visual": task(encoders["visual"], {"faces": 1}),
        "audio": task(encoders["audio"], {"clips": 1}),
    }
    made = {name: dict(part.init(None)) for name, part in parts.items()}
    params = {name: variables.pop("params") for name, variables in made.items()}
    variables = {"params": params, **made.pop("fusion"), "statistics": made}
    forward = functools.partial(end_to_end.forward, end_to_end.build(encoders), fusion)
    criterion = functools.partial(audiovisual.criterion, settings, "clips")
    return _task(config, variables, (forward, criterion), sizes["clips"], {})


def _abstract_variables(model: Any, key: Any, inputs: tuple) -> dict[str, Any]:
    variables = jax.eval_shape(functools.partial(model.init, train=False), key, *inputs)
    return {name: tree for name, tree in variables.items() if name != "intermediates"}


def _abstract_teacher(config: ConfigDict, model: Any, key: Any, inputs: tuple) -> tuple[Any, Any]:
    """The run that the config names, or, where it names none, a teacher of the student's own architecture (the paper's
    case)."""
    if not config.teacher:
        return model, {"teacher": _abstract_variables(model, key, inputs)}
    teacher_config, _, variables = checkpoints.load(config.teacher)
    teacher = expression_models.build(teacher_config.model)
    return teacher, {"teacher": jax.tree.map(lambda x: _array(*x.shape, dtype=x.dtype), variables)}


def state(task: Task, config: ConfigDict) -> tuple[TrainState, Any]:
    """What `train.initial_state` would make, as shapes, and the optimizer."""
    variables = dict(task.init(None))
    params = variables.pop("params")
    tx = optimizer.make(config, config.steps, params)
    ema = {"params": params, **variables} if config.ema else {}
    return TrainState(_array(dtype=jnp.int32), params, variables, jax.eval_shape(tx.init, params), ema), tx
