"""The demo's stages run in an order that their inputs allow, two at a time, and stop together."""

import os
import signal
import threading
import time

import pytest

from avemo.cli import stages
from media.errors import Preempted, UserError


def stage(name, *after):
    return stages.Stage(name, (), lambda stop: None, after)


def test_each_runs_after_those_it_needs_and_two_at_once():
    order, now, most, lock = [], 0, 0, threading.Lock()

    def run(one, stop):
        nonlocal now, most
        with lock:
            assert set(one.after) <= set(order)
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
            order.append(one.name)

    needs = [stage("a"), stage("b", "a"), stage("c", "a"), stage("d", "a"), stage("e", "b", "d")]
    stages.run_all(needs, run, 2)
    assert sorted(order) == ["a", "b", "c", "d", "e"]
    assert most == 2
    order.clear()
    stages.run_all(needs, run, 1)
    assert order == ["a", "b", "c", "d", "e"]


def test_an_error_or_a_signal_stops_the_others():
    stopped = []

    def run(one, stop):
        if one.name == "bad":
            raise UserError("no data")
        while not stop(0):
            time.sleep(0.01)
        stopped.append(one.name)

    with pytest.raises(UserError, match="no data"):
        stages.run_all([stage("long"), stage("bad"), stage("never", "bad")], run, 2)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(Preempted, match="the same command goes on"):
        stages.run_all([stage("long")], run, 2)
    assert stopped == ["long", "long"]


def test_a_process_s_error_line_is_ours_and_it_ends_with_the_demo(capsys):
    code = "import sys; print('half', file=sys.stderr); print('error: no such corpus', file=sys.stderr); sys.exit(2)"
    with pytest.raises(UserError, match=r"^no such corpus$"):
        stages.run_process("one", ("-c", code), os.environ, lambda step: False)
    assert capsys.readouterr().err == "half\n"
    with pytest.raises(UserError, match="stage one failed with status -15"):
        stages.run_process("one", ("-c", "import time; time.sleep(60)"), os.environ, lambda step: True)
    stages.run_process("one", ("-c", ""), os.environ, lambda step: False)
