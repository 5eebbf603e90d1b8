"""Processes with an unusual environment."""

import os
import subprocess
import sys


def to_a_closed_pipe(*arguments: str) -> tuple[int, str]:
    """Runs Python with a standard output that nobody reads; returns the exit status and standard error."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, stdout=writer, stderr=subprocess.PIPE, check=False, text=True
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr
