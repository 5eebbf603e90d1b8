"""Configs: one Python file is one experiment; `file.py:variant` chooses a variant, `--config.a.b=value` overrides
a field."""

import ast
import difflib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from media.errors import UserError, unknown


def _fields(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, ConfigDict):
            yield from _fields(value, f"{prefix}{key}.")


def load(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads `path.py[:variant]` and applies overrides.

    Args:
      spec: path of a config file, whose `get_config(variant)` returns a `ConfigDict`.
      overrides: `--config.path.to.field=value` strings; values are read as the field's type.

    Raises:
      UserError: the file, the variant or a field does not exist, or a value has the wrong type.
    """
    path, _, variant = spec.partition(":")
    if not path.endswith(".py") or not epath.Path(path).exists():
        raise UserError(f"no config file {path!r}: --config takes a path such as configs/paper/fusion.py[:smoke].")
    try:
        module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("experiment", path))
        module.__spec__.loader.exec_module(module)
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


def _override(config: ConfigDict, name: str, text: str) -> None:
    """Sets one field by its dotted name; the text is read as a value of the field's present type.

    `None` takes a number out of `model`: another network, named by `model.name`, may have no such number.
    """
    parent, _, leaf = name.rpartition(".")
    known = set(_fields(config))
    holder = config
    for part in parent.split(".") if parent else ():
        holder = holder.get(part) if isinstance(holder, ConfigDict) else None
    # The arguments of a registered module (`fusion_args`) are open: that module names its own.
    if name not in known and not (parent.endswith("_args") and parent in known):
        raise _unknown_field(name, known)
    if text == "None" and parent == "model":
        with holder.unlocked():
            del holder[leaf]
        return
    old = holder.get(leaf)
    if isinstance(old, ConfigDict) and name.endswith("_args") and text.startswith("{"):
        # Another module may take none of the numbers that are there: the group is replaced.
        with holder.unlocked():
            holder[leaf] = ConfigDict(ast.literal_eval(text))
        return
    if isinstance(old, ConfigDict):
        members = ", ".join(sorted(f for f in known if f.startswith(f"{name}.")))
        raise UserError(f"config field {name!r} is a group: set one of {members}.")
    try:
        value = text if isinstance(old, str) else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(old, tuple) and isinstance(value, (list, str, int, float)):
        value = tuple(value) if isinstance(value, list) else tuple(v for v in str(value).split(",") if v)
    number_or_numbers = isinstance(old, float) and isinstance(value, (tuple, list))  # e.g. a margin a triplet type
    if (old is not None and not isinstance(value, type(old))) or (
        isinstance(old, int) and isinstance(value, bool) != isinstance(old, bool)
    ):
        if not number_or_numbers:
            raise UserError(f"config field {name!r} takes a {type(old).__name__} such as {old!r}, not {text!r}.")
        value = tuple(value)
    with holder.unlocked(), holder.ignore_type():
        holder[leaf] = value


def _unknown_field(name: str, known: set[str]) -> UserError:
    parent = name.rpartition(".")[0]
    siblings = {k for k in known if k.rpartition(".")[0] == parent} or {k for k in known if "." not in k}
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return unknown("config field", name, siblings | set(nearest))


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """The config as plain JSON-able values."""
    return json.loads(config.to_json_best_effort())


def in_dtype(config: ConfigDict, dtype: str) -> ConfigDict:
    """The config of the same run in another compute dtype; a copy of it where `dtype` is empty."""
    config = config.copy_and_resolve_references()
    if dtype:
        with config.unlocked():
            config.model.dtype = dtype
    return config


def from_json(path: str | epath.Path) -> ConfigDict:
    """Reads the `config.json` of a run folder."""
    try:
        return ConfigDict(json.loads(epath.Path(path).read_text()))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing: {epath.Path(path).parent} is not a run folder made by `launch.py train`."
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore it or train again in a new --workdir.") from error


def difference(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Lists the fields that differ, as `name: old -> new`."""

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
        if a.get(k, missing) != b.get(k, missing)
    ]
