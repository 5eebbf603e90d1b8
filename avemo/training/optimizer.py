"""Optimizers and schedules by config string, and freezing of parameters by regular expression."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from media.errors import UserError, unknown

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "step")
FIRST_MOMENT = 0.9  # Adam's β₁; the same number as the configs' default momentum of SGD


def schedule(config: ConfigDict, steps: int) -> optax.Schedule:
    """Learning rate over a run of `steps` steps: linear warm-up for a share `warmup` of them, then `schedule`."""
    peak, warmup = config.learning_rate, round(config.warmup * steps)
    if config.schedule == "constant":
        main = optax.constant_schedule(peak)
    elif config.schedule == "cosine":
        main = optax.cosine_decay_schedule(peak, max(1, steps - warmup))
    else:  # step: ÷10 at 60 % and 85 %
        main = optax.piecewise_constant_schedule(peak, {round(steps * f) - warmup: 0.1 for f in (0.6, 0.85)})
    whole = optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup]) if warmup else main
    # optax mixes the integer count with floats; strict promotion does not.
    return lambda count: jnp.asarray(whole(jnp.asarray(count, jnp.float32)), jnp.float32)


def path_names(tree: Any) -> Any:
    """A tree of the same structure whose leaves are their own paths, `a/b/kernel`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), tree
    )


def frozen_mask(params: Any, patterns: Sequence[str]) -> Any:
    """Bools over the parameters: True if a pattern matches the path (`re.search`), so that the parameter is frozen.

    Raises:
      UserError: a pattern matches no parameter, or is not a regular expression.
    """
    names = path_names(params)
    for pattern in patterns:
        try:
            matched = any(re.search(pattern, name) for name in jax.tree.leaves(names))
        except re.error as error:
            raise UserError(f"optimizer.freeze: {pattern!r} is not a regular expression ({error}).") from error
        if not matched:
            raise UserError(
                f"optimizer.freeze: {pattern!r} matches no parameter; one is {jax.tree.leaves(names)[0]!r}."
            )
    return jax.tree.map(lambda name: any(re.search(p, name) for p in patterns), names)


def check(config: ConfigDict) -> None:
    """Checks `config.optimizer`, as far as that needs no parameters.

    Raises:
      UserError: the optimizer or schedule is unknown, or a field is set that the optimizer would ignore.
    """
    options = config.optimizer
    if options.name not in OPTIMIZERS:
        raise unknown("optimizer", options.name, OPTIMIZERS)
    if options.schedule not in SCHEDULES:
        raise unknown("schedule", options.schedule, SCHEDULES)
    if options.name == "adam" and options.weight_decay:
        raise _no_effect(options, "weight_decay", "use adamw, or set it to 0")
    if options.name != "sgd" and options.momentum != FIRST_MOMENT:
        raise _no_effect(options, "momentum", f"use sgd, or set it to {FIRST_MOMENT:g}, the decay of the first moment")


def _no_effect(options: ConfigDict, field: str, remedy: str) -> UserError:
    return UserError(
        f"optimizer.{field}={options[field]:g} has no effect with optimizer.name={options.name}: {remedy}."
    )


def make(config: ConfigDict, steps: int, params: Any) -> optax.GradientTransformation:
    """The optimizer of `config.optimizer` for a run of `steps` steps; weight decay spares biases and normalisation."""
    check(config)
    options = config.optimizer
    rate = schedule(options, steps)
    decayed = lambda tree: jax.tree.map(lambda p: p.ndim > 1, tree)  # noqa: E731
    if options.name == "sgd":
        core = optax.chain(
            optax.add_decayed_weights(options.weight_decay, mask=decayed),
            optax.sgd(rate, momentum=options.momentum, nesterov=True),
        )
    elif options.name == "adam":
        core = optax.adam(rate, b1=FIRST_MOMENT)
    else:
        core = optax.adamw(rate, b1=FIRST_MOMENT, weight_decay=options.weight_decay, mask=decayed)
    if options.clip_norm:
        core = optax.chain(optax.clip_by_global_norm(options.clip_norm), core)
    patterns = tuple(options.freeze)
    if not patterns:
        return core
    labels = jax.tree.map(lambda f: "frozen" if f else "trained", frozen_mask(params, patterns))
    return optax.multi_transform({"trained": core, "frozen": optax.set_to_zero()}, labels)
