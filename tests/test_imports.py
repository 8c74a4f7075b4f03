"""Imports run down the floors: nothing below knows what stands above it."""

import ast

import pytest
from conftest import ROOT

FLOORS = [
    {"errors", "seeds", "files", "codes"},
    {"hamming", "processes"},
    {"methods", "backbones", "metrics", "data"},
    {"config", "ranking"},
    {"module", "curves", "folder", "stopping", "checkpoints"},
    {"plots", "console", "phases", "tracking", "trainer"},
    {"report"},
    {"run", "command_line"},
    {"sweep", "search"},
    {"cli"},
]
LIBRARIES_KEPT_OUT = {
    "codes": {"pytorch_lightning", "hydra", "omegaconf", "wandb", "torchmetrics"},
    "hamming": {"pytorch_lightning", "hydra", "omegaconf", "wandb", "torchmetrics"},
    "metrics": {"pytorch_lightning", "hydra", "omegaconf", "wandb"},
    "ranking": {"pytorch_lightning", "hydra", "omegaconf", "wandb"},
    "methods": {"pytorch_lightning", "hydra", "omegaconf", "wandb", "torchmetrics", "numpy"},
    "backbones": {"pytorch_lightning", "hydra", "omegaconf", "wandb"},
}
ALLOWED_WANDB = {"tracking"}
ALLOWED_TYPER = {"cli"}

FILES = sorted((ROOT / "deephash").rglob("*.py"))


def imports(path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def room(path) -> str:
    return path.relative_to(ROOT / "deephash").parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down(path) -> None:
    here = room(path)
    if here == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "deephash" and parts[1] != here:
            assert floor(parts[1]) <= floor(here), f"{here} imports {name}, which stands above it"
            assert floor(parts[1]) < floor(here) or not circular(here, parts[1])
        assert parts[0] not in LIBRARIES_KEPT_OUT.get(here, set()), f"{here} imports {name}"
        assert parts[0] != "wandb" or here in ALLOWED_WANDB, f"{here} imports wandb"
        assert parts[0] != "typer" or here in ALLOWED_TYPER, f"{here} imports typer"


def circular(a: str, b: str) -> bool:
    """Whether b imports a, directly or through rooms of the same floor."""
    seen, open_rooms = set(), [b]
    while open_rooms:
        current = open_rooms.pop()
        seen.add(current)
        for path in FILES:
            if room(path) == current:
                for name in imports(path):
                    parts = name.split(".")
                    if parts[0] == "deephash" and parts[1] not in seen:
                        open_rooms.append(parts[1])
    return a in seen
