"""A package that is not installed is one line in every command, not a traceback from the depths."""

import os
import subprocess
import sys

import pytest

COMMANDS = {
    "data_prep": ("-m", "data_prep", "--list"),
    "launch": ("launch.py", "predict", "--workdir=run", "--input=clip.mp4", "--output=out"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_package_is_one_line(command, tmp_path):
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')\n")
    ran = subprocess.run(
        [sys.executable, *COMMANDS[command]],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=False,
    )
    said = [line for line in ran.stderr.splitlines() if not line.startswith("on CPU")]
    assert (ran.returncode, said) == (
        2,
        ["error: the package 'cv2' is not installed: pip install opencv-python-headless"],
    )
