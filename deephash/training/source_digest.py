"""A digest of the source code that determines a result."""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

THIS_PACKAGE = __name__.partition(".")[0]
LIBRARIES = ("torch", "torchvision", "timm", "pytorch_lightning", "torchmetrics", "numpy")
INSTALLED = {"site-packages", "dist-packages"}  # folders of installed packages


def source_digest(*targets: Any) -> str:
    """SHA-256 over the sources that define `targets`.

    That is the modules that define them, the packages that these are in, and all that they import,
    directly or not, from their own top-level package, from this one, or from files that are not
    installed. Imports are `import` statements; what `importlib.import_module` loads by name is not
    seen. Libraries are left out: `library_versions` tells them apart. The names and order of the
    files do not matter, only their contents, comments included.

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
        pending |= {n for n in imported if n and _may_change(n, package)}
    digests = sorted(hashlib.sha256(source).hexdigest() for source in sources.values())
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def library_versions() -> dict[str, str]:
    """The versions of the libraries whose sources are not digested."""
    return {name: version(name.replace("_", "-")) for name in LIBRARIES}


def _may_change(name: str, importer: str) -> bool:
    """Whether a module is of the importer's package, of this one, or not installed."""
    package = name.partition(".")[0]
    if package in (importer, THIS_PACKAGE):
        return True
    path = None if package in (*LIBRARIES, *sys.stdlib_module_names) else _source_file(package)
    return path is not None and not INSTALLED & set(path.parts)


def _source_file(name: str) -> Path | None:
    """The Python file of a module; None where the name is not that of one."""
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(name)
        except Exception:  # what stands before the last dot is no package, or fails to import
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
