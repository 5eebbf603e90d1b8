import subprocess
import sys

import pytest

# What a library's thread does, in a form that Python can: an exception that nobody can catch.
REPORT = """
import asyncio
from media import quiet_failures
quiet_failures.install()
class Fails:
    def __del__(self):
        {}
Fails()
"""
CLOSED = "loop = asyncio.new_event_loop(); loop.close(); loop.call_soon_threadsafe(print)"


@pytest.mark.parametrize(("what", "said"), [(CLOSED, ""), ("raise RuntimeError('else')", "RuntimeError: else\n")])
def test_only_calls_into_a_closed_loop_are_left_out(what, said):
    ran = subprocess.run([sys.executable, "-c", REPORT.format(what)], capture_output=True, text=True, check=True)
    assert ran.stderr.endswith(said)
    assert bool(ran.stderr) == bool(said)
