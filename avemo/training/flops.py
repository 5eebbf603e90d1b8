"""Floating-point operations of a traced program, with each loop's body counted once per iteration.

XLA's own cost analysis counts the body of a loop once, whatever its length, which makes a recurrent network look free.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax

_PLATFORMS = {"gpu": "cuda", "tpu": "tpu"}  # JAX's backends as `lax.platform_dependent` names them


def flops(function: Callable, *arguments: Any) -> int:
    """Operations of the matrix products and convolutions of `function(*arguments)`; a multiply-add is two.

    Elementwise operations are left out, as is usual.
    """
    return round(of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr))


def of_mapped(step: Callable, *arguments: Any) -> float:
    """Operations of one device in a mapped step on these arguments. A step that ran on them is not traced again."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
    return of_jaxpr(jax.make_jaxpr(step)(*shapes).jaxpr, _PLATFORMS.get(jax.default_backend()))


def of_jaxpr(jaxpr: Any, platform: str | None = None) -> float:
    """Operations of all matrix products and convolutions in a jaxpr: of one device, inside `shard_map`.

    The body of a `scan` counts once per iteration; that of a `while` loop of unknown length counts once. Padding counts
    as data. Of the branches of `lax.platform_dependent`, the one for `platform` ("tpu", "cuda") counts if it is given;
    otherwise, as for any other condition, the most expensive one.
    """
    return sum(_of_equation(equation, platform) for equation in jaxpr.eqns)


def _of_equation(equation: Any, platform: str | None) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[d] for d in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        per_output = math.prod(kernel) / kernel[params["dimension_numbers"].rhs_spec[0]]
        # A dilated input is mostly zeros, which no implementation multiplies.
        per_output /= math.prod(params["lhs_dilation"])
        return 2 * math.prod(equation.outvars[0].aval.shape) * per_output
    inside = [of_jaxpr(inner, platform) for inner in inner_jaxprs(params)]
    if name == "cond" and platform and params.get("branches_platforms"):
        return inside[_branch(params["branches_platforms"], platform)]
    if name == "cond":
        return max(inside, default=0)
    return (params["length"] if name == "scan" else 1) * sum(inside)


def _branch(platforms: tuple[tuple[str, ...] | None, ...], platform: str) -> int:
    """Which branch of `lax.platform_dependent` a platform takes; None stands for the default."""
    named = [i for i, names in enumerate(platforms) if names is not None and platform in names]
    return named[0] if named else platforms.index(None)


def inner_jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """The programs inside an equation's parameters: loop bodies, branches, jitted functions."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            item = getattr(item, "jaxpr", item)
            if hasattr(item, "eqns"):
                yield item
