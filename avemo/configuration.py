"""Configs: one Python file is one experiment. `file.py:variant` chooses a variant; `--config.a.b=value` overrides a
field."""

import ast
import difflib
import importlib.util
import json
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from media.errors import UserError, unknown

STREAMS = ("audio", "visual")  # of the features that `launch.py extract` writes
# The element types of tuples that are empty by default.
_ELEMENTS: dict[str, type] = {
    "optimizer.freeze": str,
    "loss.class_weights": float,
    "loss.dimensions": float,
    "model.prior_weights": float,
}


def _fields(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, ConfigDict):
            yield from _fields(value, f"{prefix}{key}.")


def load(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads `path.py[:variant]` and applies overrides.

    Args:
      spec: path of a config file with a function `get_config(variant)` that returns a `ConfigDict`. If the file
        declares `VARIANTS`, no other variant is accepted and the first is the default.
      overrides: `--config.path.to.field=value` strings. Each value is read as the field's type.

    Raises:
      UserError: the file, the variant or a field does not exist, or a value has the wrong type.
    """
    path, _, variant = spec.partition(":")
    if not path.endswith(".py") or not epath.Path(path).exists():
        raise UserError(f"no config file {path!r}: --config takes a path such as configs/paper/fusion.py[:smoke].")
    try:
        module = _module(path)
        declared = getattr(module, "VARIANTS", None)
        if declared is not None:
            variant = variant or declared[0]
            if variant not in declared:
                raise unknown(f"variant of {path}", variant, filter(None, declared))
        config = module.get_config(variant)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"config {spec!r} cannot be loaded: {type(error).__name__}: {error}") from error
    for override in overrides:
        name, separator, text = override.removeprefix("--config.").partition("=")
        if not override.startswith("--config.") or not separator:
            raise UserError(f"{override!r} is not an override: write --config.path.to.field=value.")
        _override(config, name, text)
    return config


def _module(path: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("experiment", path)
    if spec is None or spec.loader is None:
        raise UserError(f"config file {path!r} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _override(config: ConfigDict, name: str, text: str) -> None:
    """Sets one field by its dotted name. The text is read as a value of the field's present type.

    `None` removes a field from `model`, because another network (`model.name`) may not have it.
    """
    parent, _, leaf = name.rpartition(".")
    known = set(_fields(config))
    holder: Any = config
    for key in parent.split(".") if parent else ():
        holder = holder.get(key) if isinstance(holder, ConfigDict) else None
    # The arguments of a registered module (`fusion_args`) are open: the module checks their names.
    if name not in known and not (parent.endswith("_args") and parent in known):
        raise _unknown_field(name, known)
    if text == "None" and parent == "model":
        with holder.unlocked():
            del holder[leaf]
        return
    old = holder.get(leaf)
    if isinstance(old, ConfigDict) and name.endswith("_args") and text.startswith("{"):
        # Another module may take none of the present arguments, so the whole group is replaced.
        value = _literal(text)
        if not isinstance(value, dict):
            raise UserError(f"config field {name!r} takes a dictionary such as {{'features': 64}}, not {text!r}.")
        value = ConfigDict(value)
    elif isinstance(old, ConfigDict):
        members = ", ".join(sorted(f for f in known if f.startswith(f"{name}.")))
        raise UserError(f"config field {name!r} is a group: set one of {members}.")
    else:
        value = _read(name, old, text)
    with holder.unlocked(), holder.ignore_type():
        holder[leaf] = value


def _read(name: str, old: Any, text: str) -> Any:
    """Reads the text as a value of the type of `old`, the field's present value.

    A number may become a tuple of numbers (a margin per triplet type). A tuple is written `(1,2)`, `[1,2]` or `1,2`; a
    single value is a tuple of one.

    Raises:
      UserError: the text is not such a value.
    """
    if isinstance(old, str):
        return text
    value = _literal(text)
    if old is None:
        return value
    kind: type | None = type(old)
    several, example = isinstance(old, tuple), repr(old)
    if isinstance(old, tuple):
        kind = type(old[0]) if old else _ELEMENTS.get(name)
        if not old:
            example = "(1.0, 2.0)" if kind is float else "('a', 'b')"
        value = _elements(text, value, kind)
    elif isinstance(old, float) and isinstance(value, (tuple, list)):
        several = True
    try:
        return tuple(_convert(element, kind) for element in value) if several else _convert(value, kind)
    except (ValueError, OverflowError) as error:
        what = "an int" if type(old) is int else f"a {type(old).__name__}"
        raise UserError(f"config field {name!r} takes {what} such as {example}, not {text!r}.") from error


def _literal(text: str) -> Any:
    """The text as a Python literal, or the text itself if it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _elements(text: str, value: Any, kind: type | None) -> list[Any]:
    """The elements of a tuple field given as `text`, whose literal is `value`."""
    if kind is str and not isinstance(value, str) and not text.lstrip().startswith(("(", "[")):
        value = text  # `1,2` of names are the names 1 and 2
    if isinstance(value, (tuple, list)):
        return list(value)
    if value is text:
        return [element for element in text.split(",") if element]
    return [value]


def _convert(value: Any, kind: type | None) -> Any:
    """The value as a `kind`: 1 is also a float, 1e3 also an int, `true` also a bool; a bool is not a number.

    Raises:
      ValueError, OverflowError: it is not one.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and number and math.isfinite(value):
        return float(value)
    if kind is int and number and value == int(value):
        return int(value)
    if kind is bool and value in ("true", "false"):
        return value == "true"
    if kind is None or (type(value) is kind and kind not in (int, float)):
        return value
    raise ValueError(value)


def _unknown_field(name: str, known: set[str]) -> UserError:
    parent = name.rpartition(".")[0]
    siblings = {k for k in known if k.rpartition(".")[0] == parent} or {k for k in known if "." not in k}
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return unknown("config field", name, siblings | set(nearest))


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """The config as plain JSON values."""
    return json.loads(config.to_json_best_effort())


def streams(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The streams that a run's `config.model` names: in a tuple or separated by commas; "auto" is `STREAMS`."""
    named = config.get("streams") or "auto"
    if isinstance(named, str):
        return STREAMS if named == "auto" else tuple(filter(None, named.replace(" ", "").split(",")))
    return tuple(named)


def in_dtype(config: ConfigDict, dtype: str) -> ConfigDict:
    """Returns a copy of the config that computes in `dtype`, or in the same dtype if `dtype` is empty."""
    config = config.copy_and_resolve_references()
    if dtype:
        with config.unlocked():
            config.model.dtype = dtype
    return config


def from_json(path: str | epath.Path) -> ConfigDict:
    """Reads the `config.json` of a run folder."""
    try:
        values = json.loads(epath.Path(path).read_text())
        if not all(isinstance(values.get(group, {}), dict) for group in ("model", "data", "loss", "optimizer")):
            raise ValueError("a group of fields is no JSON object")
        return ConfigDict(values)
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing: {epath.Path(path).parent} is not a run folder made by `launch.py train`."
        ) from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore it or train again in a new --workdir.") from error


def difference(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Lists the fields that differ, as `name: old -> new`. A field that is new, and "auto", decides nothing."""

    def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        out = {}
        for key, value in config.items():
            if isinstance(value, dict):
                out.update(flat(value, f"{prefix}{key}."))
            else:
                out[prefix + key] = value
        return out

    a, b = flat(to_dict(old)), flat(to_dict(new))
    missing = object()
    show = lambda v: "absent" if v is missing else repr(v)  # noqa: E731
    return [
        f"{k}: {show(a.get(k, missing))} -> {show(b.get(k, missing))}"
        for k in sorted(a.keys() | b.keys())
        if a.get(k, missing) != b.get(k, missing) and (k in a or b[k] != "auto")
    ]
