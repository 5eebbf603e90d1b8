"""The rules of the house: which room may import which, read from the source with `ast`."""

import ast
import functools
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# The rooms of this project that each room may import, besides itself.
ROOMS = {"media": set(), "data_prep": {"media"}, "avemo": {"media"}}

# The floors of avemo, top to bottom. A room imports its own floor and those below. `postprocess` and `doctor` are
# commands.
FLOORS = (
    {"cli", "postprocess", "doctor"},
    {"sweep", "report", "analysis", "release", "predict", "aot"},
    {"evaluation", "training"},
    {"tasks"},
    {"runs", "data"},
    {"models", "losses", "metrics"},
    {"ops"},
    {"configuration", "version"},
)

# Aliases of third-party modules that are customary in the field.
ALIASES = {"np", "jnp", "nn", "tfds", "ocp", "pd", "plt", "tf", "F"}

# Private in spelling only: the documented interface of NamedTuple, and the documented `os._exit`.
PUBLIC = {"_replace", "_asdict", "_fields", "_make", "_exit"}

# Exceptions to the rules. These lists only shrink: an entry that no longer applies fails the test.
KNOWN_ARROWS: set[str] = set()  # imports that point upward or close a circle
KNOWN_PRIVATE: set[str] = {  # private names of another module; torchvision's own code looks this name up
    "benchmarks.parity.references: utils._log_api_usage_once",
}
KNOWN_ALIASES: set[str] = set()  # modules imported under another name


Arrow = tuple[str, str]  # importer, imported


class Import(NamedTuple):
    """One imported name: `module` is the longest prefix that is one of our modules, else the name in the statement."""

    importer: str
    module: str
    name: str  # "" for the module itself
    alias: str  # "" without `as`
    ours: bool


def _module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every module outside the tests, by its dotted name."""
    folders = (*ROOMS, "configs", "benchmarks")
    paths = [ROOT / "launch.py", *(path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))]
    return {_module_name(path): ast.parse(path.read_text(), str(path)) for path in paths}


def _resolve(importer: str, module: str, name: str, alias: str) -> Import:
    known = modules()
    if f"{module}.{name}" in known:
        return Import(importer, f"{module}.{name}", "", alias, True)
    return Import(importer, module, name, alias, module in known or module in ROOMS)


def _absolute(importer: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = importer.split(".")
    if (ROOT / pathlib.Path(*package) / "__init__.py").exists():
        package.append("")
    return ".".join([*package[: -node.level], *([node.module] if node.module else [])])


@functools.cache
def imports() -> tuple[Import, ...]:
    """Every import of every module, those inside functions included."""
    found = []
    for importer, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found += [_resolve(importer, name.name, "", name.asname or "") for name in node.names]
            elif isinstance(node, ast.ImportFrom):
                module = _absolute(importer, node)
                found += [_resolve(importer, module, name.name, name.asname or "") for name in node.names]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                named = [argument for argument in node.args[:1] if isinstance(argument, ast.Constant)]
                found += [_resolve(importer, argument.value, "", "") for argument in named]
    return tuple(found)


def room(module: str) -> str:
    """The room of a module: `media`, `data_prep`, or a folder or file directly inside avemo, as `avemo.tasks`.

    A `__main__` anywhere inside avemo is a command.
    """
    if module.startswith("avemo.") and module.endswith(".__main__"):
        return "avemo.cli"
    return ".".join(module.split(".")[:2]) if module.startswith("avemo.") else module.split(".")[0]


def arrows() -> set[Arrow]:
    """(importer, imported) between modules of the three rooms."""
    known = modules()
    return {
        (one.importer, one.module)
        for one in imports()
        if one.module in known and one.importer.split(".")[0] in ROOMS and one.importer != one.module
    }


def on_circle(graph: set[Arrow]) -> set[Arrow]:
    """The arrows whose start can be reached from their end."""
    below: dict[str, set[str]] = {}
    for start, end in graph:
        below.setdefault(start, set()).add(end)

    def reach(start: str) -> set[str]:
        seen, waiting = {start}, [start]
        while waiting:
            new = below.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    reached = {end: reach(end) for _, end in graph}
    return {(start, end) for start, end in graph if start in reached[end]}


def _check(found: set[str], known: set[str], rule: str) -> None:
    assert not found - known, f"{rule}: {sorted(found - known)}"
    assert not known - found, f"fixed, so remove it from the list of exceptions ({rule}): {sorted(known - found)}"


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_only_the_ground_floor(name):
    allowed = {name, *ROOMS[name]}
    ours = {*ROOMS, "configs", "benchmarks", "launch", "tests", "helpers"}
    for one in imports():
        if one.importer.split(".")[0] == name:
            assert one.module.split(".")[0] in allowed or one.module.split(".")[0] not in ours, one


def test_every_room_of_avemo_stands_on_a_floor():
    names = {module.split(".")[1] for module in modules() if module.startswith("avemo.")}
    assert names == set().union(*FLOORS)


def upward(graph: set[Arrow]) -> set[Arrow]:
    """The arrows from a floor of avemo to one above it."""
    floor = {f"avemo.{name}": level for level, names in enumerate(FLOORS) for name in names}
    return {(start, end) for start, end in graph if floor.get(room(start), -1) > floor.get(room(end), len(FLOORS))}


def circling(graph: set[Arrow]) -> set[Arrow]:
    """The arrows that lie on a circle of modules or of rooms."""
    between = {(room(start), room(end)) for start, end in graph if room(start) != room(end)}
    on_circles, rooms_on_circles = on_circle(graph), on_circle(between)
    return {(a, b) for a, b in graph if (a, b) in on_circles or (room(a), room(b)) in rooms_on_circles}


def test_arrows_point_down_and_close_no_circle():
    graph, known = arrows(), {tuple(arrow.split(" -> ")) for arrow in KNOWN_ARROWS}
    rest = graph - known
    wrong = upward(rest) | circling(rest)
    assert not wrong, f"these imports point upward or lie on a circle: {_shown(wrong)}"
    mended = {arrow for arrow in known if arrow not in upward(graph) | circling(rest | {arrow})}
    mended |= known - graph
    assert not mended, f"fixed, so remove them from KNOWN_ARROWS: {_shown(mended)}"


def _shown(graph: set[Arrow]) -> list[str]:
    return sorted(" -> ".join(arrow) for arrow in graph)


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def _on_itself(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def _defined(tree: ast.Module) -> set[str]:
    """Names that a module defines: functions, classes, variables, fields, attributes of `self` or `cls`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _on_itself(node):
            names.add(node.attr)
    return names


def _foreign(tree: ast.Module) -> Iterator[str]:
    """Private attributes that a module reads without defining them, or sets on anything but `self` and `cls`."""
    defined = _defined(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _private(node.attr) and not _on_itself(node):
            patched = isinstance(node.ctx, ast.Store | ast.Del)
            if patched or node.attr not in defined:
                yield ast.unparse(node)


def _private_uses() -> Iterator[str]:
    """`module: name` for every private name that a module takes from another."""
    for one in imports():
        if _private(one.name):
            yield f"{one.importer}: {one.module}.{one.name}"
    for module, tree in modules().items():
        for attribute in _foreign(tree):
            yield f"{module}: {attribute}"


def test_no_private_name_of_another_module():
    _check(set(_private_uses()), KNOWN_PRIVATE, "a private name of another module is used or patched")


def test_no_module_needs_an_alias():
    aliased = {
        f"{one.importer}: {one.module} as {one.alias}"
        for one in imports()
        if one.alias and not one.name and one.alias not in ALIASES
    }
    _check(aliased, KNOWN_ALIASES, "a module is imported under another name")


def test_nothing_touches_a_private_module_of_a_library():
    """JAX and Flax move what is below `_src` in any release."""
    files = [ROOT / "launch.py", *(path for name in (*ROOMS, "configs") for path in (ROOT / name).rglob("*.py"))]
    assert len(files) > 200
    assert not [str(path.relative_to(ROOT)) for path in files if "._src" in path.read_text()]


def test_the_rules_see_a_circle():
    ring = {("a", "b"), ("b", "c"), ("c", "a")}
    assert on_circle(ring | {("c", "d")}) == ring
    assert on_circle({("a", "b"), ("b", "c"), ("a", "c")}) == set()


def test_the_rules_see_an_upward_arrow():
    down, up = ("avemo.cli.demo", "avemo.tasks"), ("avemo.tasks.audio", "avemo.cli.demo")
    assert upward({down, up, ("avemo.tasks", "media.audio")}) == {up}


def test_the_rules_see_a_patched_private_attribute():
    own = "class A:\n def f(self, other):\n  self._x = 1\n  return other._x"
    assert not list(_foreign(ast.parse(own)))
    assert list(_foreign(ast.parse(own + "\nb._x = 2"))) == ["b._x"]
    assert list(_foreign(ast.parse("c = b._y + b.z"))) == ["b._y"]
