"""The files, links, commands and modules named in the documentation exist."""

import pathlib
import re

import pytest

from avemo.cli.commands import COMMANDS

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FOLDERS = "avemo|benchmarks|configs|data_prep|docs|media|notebooks|tests"


def ids(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_named_files_exist(page):
    for name in re.findall(rf"(?<![\w/.-])((?:{FOLDERS})/[\w/.-]*\w)", page.read_text()):
        found = any((ROOT / f"{name}{suffix}").exists() for suffix in ("", ".py"))
        assert found or "::" in name, name


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_exist(page):
    text = page.read_text()
    for command in re.findall(r"launch\.py ([a-z]+) --", text):
        assert command in COMMANDS, command
    for command, arguments in re.findall(r"launch\.py ([a-z]+)([^\n`|]*)", text.replace("\\\n", " ")):
        known = {name.rstrip("!*") for name in COMMANDS[command].flags} if command in COMMANDS else set()
        assert set(re.findall(r" \[?--([a-z_]+)\b(?!\.)", arguments)) <= {*known, "help"}, (command, arguments)
    for module in re.findall(r"python -m ((?:avemo|benchmarks|data_prep)[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for target in re.findall(r"^    make ([\w-]+)|`make ([\w-]+)", text, re.M):
        assert "".join(target) in targets, target
