"""What counts as idle, by a clock that the test moves."""

import threading
import types

import numpy as np
import pytest

from avemo.training import device_clock


class Output:
    """The output of a step that is done when the test says so."""

    def __init__(self):
        self.done = threading.Event()

    def block_until_ready(self):
        self.done.wait()
        return self


class Machine:
    """A device and a loop on made-up time."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(device_clock, "time", types.SimpleNamespace(monotonic=lambda: self.now))
        self.clock, self.outputs = device_clock.DeviceClock(), []

    def dispatch(self):
        self.outputs.append(Output())
        self.clock.dispatched(len(self.outputs), self.now, {"loss": self.outputs[-1]})

    def finish(self, number, at):
        self.now = at
        self.outputs[number - 1].done.set()
        return self.clock.shares(number)

    def wait(self, reason, until):
        with self.clock.waiting(reason):
            self.now = until


@pytest.fixture
def machine(monkeypatch):
    machine = Machine(monkeypatch)
    yield machine
    machine.clock.close()


def test_a_pause_is_idle_and_belongs_to_what_the_loop_did(machine):
    machine.dispatch()
    assert machine.finish(1, at=100.0) == {}  # compilation
    machine.wait(device_clock.INPUT, until=101.0)
    machine.wait(device_clock.EVALUATION, until=101.5)
    machine.now = 102.0
    machine.dispatch()
    assert machine.finish(2, at=104.0) == pytest.approx({"idle": 0.5, "idle_input": 0.25, "idle_evaluation": 0.125})
    machine.dispatch()
    assert machine.finish(3, at=106.0) == {"idle": 0, "idle_input": 0, "idle_evaluation": 0}


def test_what_the_loop_does_while_a_step_runs_is_not_idle(machine):
    machine.dispatch()
    machine.finish(1, at=1.0)
    machine.dispatch()
    machine.wait(device_clock.INPUT, until=3.0)  # drawn while step 2 runs
    machine.dispatch()
    machine.now = 5.0
    assert machine.finish(2, at=5.0)["idle"] == 0
    assert machine.finish(3, at=6.0)["idle"] == 0  # dispatched before step 2 was done


def test_a_step_that_fails_is_left_to_the_loop(machine):
    class Failing:
        def block_until_ready(self):
            raise RuntimeError("out of memory")

    machine.clock.dispatched(1, 0.0, [Failing()])
    assert machine.clock.shares(1) == {}
    machine.clock.dispatched(2, 0.0, [np.zeros(1)])
    assert machine.clock.shares(2) == {}
