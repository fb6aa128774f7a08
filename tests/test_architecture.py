"""The rooms: who may import whom, and where each third-party library is named."""

import ast
import sys
from pathlib import Path

import pytest

import mlhubfs

PACKAGE = Path(mlhubfs.__file__).parent
LEAVES = {"errors", "config", "tarheader", "version"}
FLOORS = {
    "transport": 1,
    "catalog": 2,
    "content": 2,
    "tree": 3,
    "download": 4,
    "fuse": 5,
    "session": 5,
    "library": 6,
    "mount": 6,
    "__init__": 7,  # the package's front hands out the library
    "cli": 7,
}
LIBRARIES = {
    "fuse": "fuse",  # what fusepy is imported as; our own room is `mlhubfs.fuse`
    "mfusepy": "fuse",
    "cachetools": "catalog",
    "arro3": "catalog",
    "diskcache": "content",
    "botocore": "transport",
    "requests": "transport",
    "urllib3": "transport",
    "starlette": "server",
    "uvicorn": "server",
    "click": "cli",
    "tqdm": "cli",
}
ANYWHERE = {"msgspec", "platformdirs"}  # JSON and folders are nobody's own
ROOM_OF = {
    "daemon": "mount",
    "log": "mount",
    "mountpoint": "mount",
    "served": "mount",
    "status": "mount",
    "__main__": "cli",
}


def imported(source, package=("mlhubfs",)):
    """Return the dotted names that a module imports, wherever in it.

    In one that imports by name (`importlib`), every string that names a library counts as one.
    """
    names = set()
    nodes = list(ast.walk(ast.parse(source)))
    if any("import_module" in (getattr(node, "attr", 0), getattr(node, "id", 0)) for node in nodes):
        texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
        names |= texts & set(LIBRARIES)
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def room(name):
    """Return the room of a dotted name below mlhubfs, None for another's."""
    parts = name.split(".")
    if parts[0] != "mlhubfs":
        return None
    here = parts[1] if len(parts) > 1 else "__init__"
    if not ((PACKAGE / here).is_dir() or (PACKAGE / f"{here}.py").is_file()):
        here = "__init__"  # a name of the package itself: Catalog
    return ROOM_OF.get(here, here)


def modules():
    """Return module name -> the names it imports, for all of the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("mlhubfs", *path.relative_to(PACKAGE).with_suffix("").parts)
        package = parts[:-1]
        name = ".".join(package if parts[-1] == "__init__" else parts)
        found[name] = imported(path.read_text(encoding="utf-8"), package)
    return found


MODULES = modules()


def may_import(here, there):
    """Say whether the map of DESIGN.md lets a module of one room import from another."""
    if here == there or (there in LEAVES and here != "errors"):
        return True
    if here == "cli" and there == "server":
        return True
    return here in FLOORS and there in FLOORS and FLOORS[there] < FLOORS[here]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module):
    """No module imports from a room beside it or above it."""
    wrong = [
        name for name in MODULES[module] if room(name) and not may_import(room(module), room(name))
    ]
    assert not wrong


def test_every_room_is_on_the_map():
    """A new folder or module of the package has to be given a floor here, and a line in DESIGN."""
    assert {room(name) for name in MODULES} <= {*FLOORS, *LEAVES, "server"}


def test_there_are_no_cycles():
    """Following imports from module to module never leads back."""
    graph = {
        name: {found for target in imports if (found := _module(target)) and found != name}
        for name, imports in MODULES.items()
    }
    done = set()

    def visit(name, way):
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for target in graph[name]:
                visit(target, [*way, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def _module(name):
    """Return the module that a dotted name is, or is in."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_a_library_is_named_in_one_room(library):
    """What is to be replaced one day is found in one place, and is used there."""
    users = {
        room(module)
        for module, imports in MODULES.items()
        if any(name.split(".")[0] == library for name in imports)
    }
    assert users == {LIBRARIES[library]}


def test_no_other_library_is_used():
    """Every third-party library that the package imports is one of those above."""
    used = {name.split(".")[0] for imports in MODULES.values() for name in imports}
    assert used - set(sys.stdlib_module_names) - {"mlhubfs"} <= {*LIBRARIES, *ANYWHERE}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f():\n    import fuse", {"fuse"}),
        ("from mlhubfs.fuse import binding", {"mlhubfs.fuse.binding"}),
        ("from mlhubfs import Catalog, mountpoint", {"mlhubfs.Catalog", "mlhubfs.mountpoint"}),
        ("from . import api\nfrom .api import Api\nfrom ..errors import NotFound",
         {"mlhubfs.catalog.api", "mlhubfs.catalog.api.Api", "mlhubfs.errors.NotFound"}),
        ("M = {'f': 'mfusepy'}\nm = importlib.import_module(M['f'])", {"mfusepy"}),
        ("if 1:\n  import requests.adapters as a", {"requests.adapters"}),
    ],
)  # fmt: skip
def test_an_import_is_seen_however_it_is_written(source, names):
    """Neither indentation nor relative form hides an import from these tests."""
    assert imported(source, ("mlhubfs", "catalog")) == names


@pytest.mark.parametrize(
    ("here", "there", "allowed"),
    [
        ("tree", "catalog", True),
        ("tree", "fuse", False),
        ("catalog", "content", False),
        ("transport", "config", True),
        ("server", "errors", True),
        ("server", "transport", False),
        ("mount", "server", False),
        ("mount", "library", False),
        ("library", "session", True),
        ("session", "fuse", False),
        ("transport", "__init__", False),
        ("cli", "server", True),
        ("errors", "config", False),
        ("config", "transport", False),
    ],
)
def test_the_map_forbids_what_it_is_to_forbid(here, there, allowed):
    """The rule that the tests above apply is DESIGN.md's."""
    assert may_import(here, there) is allowed
