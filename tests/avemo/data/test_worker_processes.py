"""Batches from other processes: in order, resumable with any number of them, gone with their parent."""

import os
import pickle
import signal
import subprocess
import sys
import time

import grain
import numpy as np
import psutil
import pytest

from avemo.data.worker_processes import WorkerBatches, pack, unpack
from media.errors import UserError


def numbered():
    return grain.MapDataset.range(1000).map(lambda n: {"faces": {"image": np.full((2, 5), n, np.uint8), "label": n}})


def children():
    """Processes of this one. Tests that ran in it before may have left a fork server, which is not ours."""
    return set(psutil.Process().children())


def take(batches, count):
    found = [next(batches)["faces"] for _ in range(count)]
    return [batch["label"] for batch in found if (batch["image"] == batch["label"]).all()]


def test_a_run_resumes_with_another_number_of_processes():
    before = children()
    two = WorkerBatches(numbered(), 2, 1)
    assert take(two, 3) == [0, 1, 2]
    state = two.get_state()
    assert state == {"next_index": 3}
    two.close()
    assert children() == before
    three = WorkerBatches(numbered(), 3, 2)
    three.set_state(state)
    assert take(three, 5) == [3, 4, 5, 6, 7]
    two.set_state({"next_index": 8})
    assert take(two, 1) == [8]
    two.close()
    three.close()


def test_an_error_of_the_data_is_raised_as_it_is():
    def example(number):
        if number == 1:
            raise UserError("record 1 is damaged")
        if number == 2:
            raise KeyError("label")
        return number

    batches = WorkerBatches(grain.MapDataset.range(9).map(example), 2, 1)
    assert next(batches) == 0
    with pytest.raises(UserError, match="record 1 is damaged"):
        next(batches)
    batches.set_state({"next_index": 2})
    with pytest.raises(RuntimeError, match=r"(?s)in example.*KeyError: 'label'"):
        next(batches)
    batches.close()


def test_a_process_that_dies_is_one_clear_error():
    before = children()
    batches = WorkerBatches(numbered(), 1, 1)
    next(batches)
    (worker,) = children() - before
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"ended by signal 9 \(SIGKILL\).*--config\.data\.workers"):
        take(batches, 9)
    batches.close()


PARENT = """
import time, grain, psutil
from avemo.data.worker_processes import WorkerBatches
batches = WorkerBatches(grain.MapDataset.range(100).map(lambda n: time.sleep(0.1) or n), 2, 1)
next(batches), next(batches)
print(*(child.pid for child in psutil.Process().children()), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_their_parent(how):
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        for worker in workers:  # a signal to the whole group is the parent's to answer
            os.kill(worker, signal.SIGTERM)
        time.sleep(0.3)
        assert all(psutil.pid_exists(worker) for worker in workers)
        parent.send_signal(how)
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(worker) and psutil.Process(worker).status() != "zombie" for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_arrays_of_any_kind_travel():
    batch = {"a": np.zeros((0, 3), np.float32), "b": [np.arange(6).reshape(2, 3)[:, ::2], np.float32(2)], "c": "text"}
    message, descriptor = pack(batch)
    found = unpack(pickle.loads(message), descriptor)
    assert found["a"].shape == (0, 3)
    np.testing.assert_array_equal(found["b"][0], batch["b"][0])
    assert found["b"][1] == 2
    assert found["c"] == "text"
