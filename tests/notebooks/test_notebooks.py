"""Both notebooks executed by Jupyter, as a newcomer would: one from an empty folder, the other after the demo."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MEGABYTES = 8  # a page with a recording in it, and some twenty pictures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs_and_opens_in_colab(path):
    cells = json.loads(path.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    badge = re.compile(r"\(https://colab\.research\.google\.com/github/(\S+)/blob/main/(\S+)\)")
    repository, file = badge.search("".join(cells[0]["source"])).groups()
    assert (ROOT / file) == path
    assert (repository, file) in badge.findall((ROOT / "README.md").read_text())


def execute(path, folder, **environment):
    """Runs a notebook in a folder; returns its code cells with their outputs."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])
    client = NotebookClient(notebook, timeout=3000, resources={"metadata": {"path": str(folder)}})
    # A kernel that finds itself in a test leaves out what the commands print.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    client.execute(env={**inherited, "XLA_FLAGS": flags, "PYTHONWARNINGS": "default", **environment})
    assert len(nbformat.writes(notebook)) < MEGABYTES * 1e6
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(cell):
    return "".join(o.get("text", "") or str(o.get("data", {}).get("text/plain", "")) for o in cell.outputs)


def kinds(cells):
    return [kind for cell in cells for output in cell.outputs for kind in output.get("data", {})]


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """The executed cells of colab.ipynb and the checkout that it made, beginning with an empty folder."""
    folder = tmp_path_factory.mktemp("colab")
    source = folder / "source"
    for name in ("avemo", "configs", "data_prep", "media", "notebooks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("launch.py", "pyproject.toml", *(path.name for path in ROOT.glob("requirements*.txt"))):
        shutil.copy(ROOT / file, source)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(source))
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "all")):
        subprocess.run([*git, *command], check=True)
    content = folder / "content"
    content.mkdir()
    environment = {"AVEMO_SOURCE": source.as_uri(), "AVEMO_DEMO": "--smoke", "AVEMO_STEPS": "2"}
    return execute(ROOT / "notebooks/colab.ipynb", content, **environment), content / "avemo"


@pytest.mark.slow
@pytest.mark.portable
def test_colab_runs_from_an_empty_folder(colab):
    cells, checkout = colab
    install, doctor, demo, metrics, predicted, viewer, sweep, table = cells
    assert "kept: {'jax': " in text_of(install)
    assert "JAX runs on           CPU" in text_of(doctor)
    assert "everything works" in text_of(doctor)
    assert "[12/12]" in text_of(demo)
    assert "ccc_mean" in text_of(metrics)
    assert "image/png" in kinds([predicted])
    pages = [output.get("data", {}).get("text/html", "") for output in viewer.outputs]  # beside what Python warns of
    assert any("<iframe srcdoc=" in page for page in pages)
    assert "Three fusions" in text_of(sweep) or (checkout / "runs/demo/three_fusions/table.md").exists()
    shown = text_of(table)
    for fusion in ("concat", "gmu", "model_level"):
        assert fusion in shown
    assert len(list((checkout / "runs/demo/three_fusions/cells").glob("*/*/result.json"))) == 6


@pytest.mark.slow
@pytest.mark.portable
def test_analysis_runs_in_its_own_folder_after_the_demo(colab):
    _, checkout = colab
    notebook = checkout / "notebooks/analysis.ipynb"
    cells = execute(notebook, notebook.parent, PYTHONPATH=str(checkout))
    found = kinds(cells)
    assert found.count("image/png") >= 15
    assert found.count("text/html") >= 6
