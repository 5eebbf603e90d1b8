"""How steps are divided among dispatches."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from avemo.training import dispatch
from media.errors import UserError


def config(**fields):
    return ConfigDict({"log_every": 10, "eval_every": 50, "steps": 200, "profile": 0, **fields})


@given(st.integers(1, 20), st.integers(1, 12), st.integers(1, 4), st.integers(1, 90))
def test_no_dispatch_crosses_a_line_of_the_log_and_a_resumed_run_has_the_same(bulk, log, evaluations, steps):
    settings = config(log_every=log, eval_every=log * evaluations, steps=steps)
    number, begins = 0, []
    while number < steps:
        begins.append(number)
        count = dispatch.steps_at(settings, bulk, number)
        assert count in (1, bulk)
        assert number // log == (number + count - 1) // log  # the line after it is written when it is over
        number += count
    assert number == steps
    assert {n for n in range(0, steps, log)} <= set(begins)


def test_short_steps_run_in_bulk_where_launching_them_takes_longer(monkeypatch):
    assert dispatch.at_most(config(), short=True) == 1  # this is a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert dispatch.at_most(config(), short=True) == 10
    assert dispatch.at_most(config(log_every=50), short=True) == 10
    assert dispatch.at_most(config(log_every=32), short=True) == 16
    assert dispatch.at_most(config(), short=False) == 1
    assert dispatch.at_most(config(profile=3), short=True) == 1
    assert dispatch.at_most(config(), short=True, before=5) == 5
    assert dispatch.at_most(config(steps_per_dispatch="7"), short=False) == 7
    for bad in ("0", "many", "-1", "1.5"):
        with pytest.raises(UserError, match=rf"steps_per_dispatch is {bad}: it takes auto"):
            dispatch.at_most(config(steps_per_dispatch=bad), short=True)


def test_batches_are_stacked_per_dispatch():
    class Batches:
        position = 0

        def get_state(self):
            return self.position

        def __next__(self):
            self.position += 1
            return {"a": {"index": np.array([self.position, -self.position])}}

    drawn = dispatch.Dispatches(Batches(), lambda number: 3 if number == 1 else 1, start=0)
    assert next(drawn)[1]["a"]["index"].tolist() == [1, -1]
    assert drawn.get_state() == 1
    count, batches = next(drawn)
    assert count == 3
    assert batches["a"]["index"].tolist() == [[2, 3, 4], [-2, -3, -4]]
    assert next(drawn)[1]["a"]["index"].tolist() == [5, -5]
