import os
import pathlib
import subprocess
import sys
import time

from media import processes

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARENT = """
import subprocess, sys, time
from media import processes
child = subprocess.Popen(processes.ending_with_this("sleep", "60"))
print(child.pid, flush=True)
time.sleep(60)
"""


def alive(pid):
    stat = pathlib.Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_child_ends_with_a_parent_that_is_killed():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", PARENT], env=environment, stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        while pathlib.Path(f"/proc/{child}/comm").read_text() != "sleep\n":
            time.sleep(0.01)
        parent.kill()
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(child)


def test_a_child_whose_parent_has_ended_before_does_not_begin():
    command = [sys.executable, "-m", "media.processes", "1", "echo", "began"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout) == (-15, b"")
    assert processes.ending_with_this("a")[-2:] == (str(os.getpid()), "a")
