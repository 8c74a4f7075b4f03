"""A digest of the source code that determines a result."""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

THIS_PACKAGE = __name__.partition(".")[0]
LIBRARIES = {"torch", "torchvision", "timm", "pytorch_lightning", "torchmetrics", "numpy"}


def source_digest(*targets: Any) -> str:
    """SHA-256 over the sources that define `targets`.

    That is the modules that define them, the packages that these are in, and all that they import,
    directly or not, from their own top-level package or from this one. Libraries are left out:
    their versions tell them apart. The names and order of the files do not matter, only their
    contents.

    Args:
        targets: classes or functions.
    """
    pending = {target.__module__ for target in targets}
    sources: dict[str, bytes] = {}
    while pending:
        name = pending.pop()
        package = name.partition(".")[0]
        path = None if name in sources or package in LIBRARIES else _source_file(name)
        if path is None:
            continue
        sources[name] = path.read_bytes()
        imported = {name.rpartition(".")[0], *_imported_names(sources[name], name, path)}
        pending |= {n for n in imported if n.partition(".")[0] in (package, THIS_PACKAGE)}
    digests = sorted(hashlib.sha256(source).hexdigest() for source in sources.values())
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _source_file(name: str) -> Path | None:
    """The Python file of a module; None where the name is not that of one."""
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:  # what stands before the last dot is not a package
            return None
        origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


def _imported_names(source: bytes, module: str, path: Path) -> Iterator[str]:
    """Absolute names of what a module imports: of modules, and of what it takes out of them."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            origin = importlib.util.resolve_name(relative, package)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)
