"""Builds networks from `config.model`, so that a misspelt field is a user error and not a traceback."""

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import freeze

from avemo.ops.linear import Dtype
from media.errors import unknown

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
AUTO = "auto"

# Fields of `config.model` that the stages read: the network, its initial weights, and what stays frozen.
_STAGE_FIELDS = frozenset({"name", "init_from", "freeze"})


def network_fields(
    kind: str, config: Mapping[str, Any], known: Collection[str], ignored: Collection[str] = ()
) -> dict[str, Any]:
    """Reads the network's own fields of `config.model`.

    Args:
      kind: what is built, for the message, e.g. "field of model 'compact'".
      config: `config.model`.
      known: the fields that the network has; `dtype` is always one of them.
      ignored: fields of `config.model` that something else reads, besides those that every stage has.

    Returns:
      The fields that the config sets, and `dtype`. Lists become tuples and mappings frozen ones, since a module must
      be hashable.

    Raises:
      UserError: for a field that does not exist, listing those that do; for an unknown dtype.
    """
    found = {name: value for name, value in config.items() if name not in _STAGE_FIELDS and name not in ignored}
    for name in found:
        if name not in known and name != "dtype":
            raise unknown(kind, name, {*known, "dtype"})
    return {name: _frozen(value) for name, value in found.items()} | {"dtype": _dtype(found.get("dtype") or "float32")}


def construct(kind: str, factory: Callable, arguments: Mapping[str, Any] | None, /, **context: Any) -> nn.Module:
    """Calls `factory(**context, **arguments)` after checking the names of the arguments against its fields.

    Args:
      kind: what is built, for the message, e.g. "fusion 'gmu'".
      factory: a linen module class, or a `functools.partial` of one; a config cannot set fields that it binds.
      arguments: fields from the config; lists and mappings are made hashable.
      **context: fields that the caller sets; those that the class does not have are left out.

    Raises:
      UserError: for a field that does not exist, listing those that do.
    """
    settable = module_fields(factory)
    settable_by_config = settable - set(context)
    for name in arguments or {}:
        if name not in settable_by_config:
            raise unknown(f"argument of {kind}", name, settable_by_config)
    context = {name: value for name, value in context.items() if name in settable | {"parent", "name"}}
    return factory(**context, **{name: _frozen(value) for name, value in (arguments or {}).items()})


def module_fields(factory: Callable) -> set[str]:
    """The fields of a module class, less those that Flax adds or a `functools.partial` binds."""
    bound = set(factory.keywords) if isinstance(factory, functools.partial) else set()
    module: Any = factory.func if isinstance(factory, functools.partial) else factory
    return {field.name for field in fields(module)} - {"parent", "name"} - bound


def decided(dtype: str, accelerator: bool) -> str:
    """What `model.dtype` stands for. "auto" is bfloat16 on an accelerator and float32 on a CPU."""
    return ("bfloat16" if accelerator else "float32") if dtype == AUTO else dtype


def _dtype(name: str) -> Dtype:
    name = decided(name, jax.default_backend() != "cpu")
    if name not in DTYPES:
        raise unknown("model.dtype", name, [AUTO, *DTYPES])
    return DTYPES[name]


def _frozen(value: Any) -> Any:
    if hasattr(value, "items"):
        return freeze({key: _frozen(item) for key, item in value.items()})
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
