"""Builds a module from a config's mapping, so that a misspelt field is a user's error and not a traceback."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from avemo.ops.linear import Dtype
from media.errors import unknown

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def construct(kind: str, factory: Callable, arguments: Mapping[str, Any] | None, /, **context: Any) -> nn.Module:
    """Calls `factory(**context, **arguments)` after checking the arguments' names against its fields.

    Args:
      kind: what is built, for the message, e.g. "fusion 'gmu'".
      factory: a linen module class, or a `functools.partial` of one (whose bound fields are not the config's to set).
      arguments: fields from the config; lists become tuples, since a module must be hashable.
      **context: fields that the caller sets; those that the class does not have are left out.

    Raises:
      UserError: for a field that does not exist, listing those that do.
    """
    bound = set(factory.keywords) if isinstance(factory, functools.partial) else set()
    cls = factory.func if isinstance(factory, functools.partial) else factory
    known = {field.name for field in fields(cls)} - {"parent", "name"} - bound
    settable = known - set(context)
    arguments = dict(arguments or {})
    for name in arguments:
        if name not in settable:
            raise unknown(f"argument of {kind}", name, settable)
    context = {name: value for name, value in context.items() if name in known | {"parent", "name"}}
    return factory(**{**context, **{name: _frozen(value) for name, value in arguments.items()}})


def dtype_of(config: Mapping[str, Any]) -> Dtype:
    """Returns the compute dtype that a model's `config["dtype"]` names: float32 (default) or bfloat16.

    Raises:
      UserError: another name.
    """
    name = config.get("dtype") or "float32"
    if name not in DTYPES:
        raise unknown("model.dtype", name, DTYPES)
    return DTYPES[name]


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
