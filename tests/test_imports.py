"""The architecture of deephash/: which room may import which, read from the source files.

A room is a folder of deephash/. Imports inside functions count, and so do those for type checking.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "deephash"
FILES = sorted(PACKAGE.rglob("*.py"))

# From bottom to top. A room may import rooms of lower levels, but no other room of its own level.
LEVELS = [
    {"core"},
    {"hamming"},
    {"backbones", "data", "index", "methods", "metrics"},
    {"inference"},
    {"training"},
    {"experiment", "serve"},
    {"cli"},
    {"__main__"},
]
FRAMEWORKS = {"lightning", "pytorch_lightning", "hydra", "omegaconf", "wandb"}
FORBIDDEN_LIBRARIES = {
    "backbones": FRAMEWORKS,
    "hamming": FRAMEWORKS | {"torchmetrics"},
    "index": FRAMEWORKS,
    "inference": FRAMEWORKS,
    "methods": FRAMEWORKS | {"torchmetrics", "numpy"},
    "metrics": FRAMEWORKS,
}
# Files and rooms outside of which a library must not be imported.
ONLY_IN = {
    "wandb": {"deephash/experiment/loggers.py"},
    "typer": {"deephash/cli"},
}
ONLY_INSIDE_FUNCTIONS = {
    "backbones": {"timm", "torchvision"},
    "core/instantiate.py": {"hydra", "omegaconf", "pydantic"},
}
LIGHT_FILES = {f"core/{name}.py" for name in ("__init__", "errors", "io", "ranks", "seeds")}
HEAVY_LIBRARIES = {"torch", "numpy", "hydra", "omegaconf", "pydantic"}

MAX_ENTRIES = 14
MAX_LINES = 300
LONG_FILES = {"hamming/cpu.py"}  # numba's cache needs all kernels in one file


def imported_modules(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names that a file imports; `from a import b` is "a.b"."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: use an absolute import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    return names


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def level_of(room: str) -> int:
    levels = [level for level, rooms in enumerate(LEVELS) if room in rooms]
    assert levels, f"the room '{room}' has no level: add it to LEVELS"
    return levels[0]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def source_file(module: str) -> Path | None:
    """The file that defines `module`, or that defines the name that it ends with."""
    parts = module.split(".")
    if parts[0] != "deephash":
        return None
    for names in (parts, parts[:-1]):
        path = ROOT.joinpath(*names)
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
        if (path / "__init__.py").is_file():
            return path / "__init__.py"
    return None


# The front door may import every room: it does so lazily.
ROOM_FILES = [path for path in FILES if path != PACKAGE / "__init__.py"]
every_room_file = pytest.mark.parametrize("path", ROOM_FILES, ids=relative)


@every_room_file
def test_imports_run_down(path: Path) -> None:
    room = room_of(path)
    for name in sorted(imported_modules(path)):
        package, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if package == "deephash" and (PACKAGE / other).is_dir() and other != room:
            assert level_of(other) < level_of(room), f"'{room}' must not import '{name}'"


@every_room_file
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    room, place = room_of(path), path.relative_to(PACKAGE).as_posix()
    libraries = {name.partition(".")[0] for name in imported_modules(path)}
    assert not libraries & FORBIDDEN_LIBRARIES.get(room, set())
    for library, places in ONLY_IN.items():
        allowed = relative(path) in places or f"deephash/{room}" in places
        assert library not in libraries or allowed, f"{library} belongs in {places}"
    if room == "metrics" and path.name != "hamming_ranking.py":
        assert "torchmetrics" not in libraries
    if place in LIGHT_FILES:
        assert not libraries & HEAVY_LIBRARIES
    top_level = {name.partition(".")[0] for name in imported_modules(path, top_level_only=True)}
    for key in (room, place):
        assert not top_level & ONLY_INSIDE_FUNCTIONS.get(key, set())


def test_no_file_imports_itself_through_others() -> None:
    graph = {
        path: {source_file(name) for name in imported_modules(path)} - {None, path}
        for path in ROOM_FILES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(relative(path) for path in reversed(error.args[1])))


def test_package_has_few_entries() -> None:
    entries = {
        path.name
        for path in PACKAGE.iterdir()
        if path.name not in ("__init__.py", "py.typed", "__pycache__", ".DS_Store")
    }
    assert len(entries) <= MAX_ENTRIES, sorted(entries)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_are_short(path: Path) -> None:
    if path.relative_to(PACKAGE).as_posix() not in LONG_FILES:
        assert len(path.read_text().splitlines()) <= MAX_LINES


def test_the_checks_find_what_they_look_for(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(
        "import a.b\n"
        "from c.d import e, f as g\n"
        "def run():\n"
        "    import h\n"
        "    importlib.import_module('i.j')\n"
    )
    assert imported_modules(path) == {"a.b", "c.d.e", "c.d.f", "h", "i.j"}
    assert imported_modules(path, top_level_only=True) == {"a.b", "c.d.e", "c.d.f"}
    assert source_file("deephash.hamming.codes.pack") == PACKAGE / "hamming/codes.py"
    assert source_file("deephash.hamming.distance_histogram") == PACKAGE / "hamming/__init__.py"
    assert source_file("numpy.array") is None
    path.write_text("from . import a\n")
    with pytest.raises(AssertionError, match="absolute import"):
        imported_modules(path)
