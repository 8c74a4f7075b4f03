"""Where a benchmark ran, how it is timed, and how its results are written."""

import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from deephash.core.io import atomic_write, write_json
from deephash.experiment.report import processor

RESULTS = Path(__file__).resolve().parent / "results"
FASTEST_OF = 5  # repeats of what is timed

T = TypeVar("T")


def machine(*libraries: str) -> dict[str, Any]:
    """Processor, cores, load and versions."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("deephash", "torch", *libraries)},
        },
    }


def described(where: dict[str, Any]) -> str:
    """One sentence of what `machine` found."""
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    gpu = f"{where['gpu']}; " if where.get("gpu") else ""
    return f"{gpu}{where['processor']}, {where['cores']} cores; {versions}."


def timed(compute: Callable[[], T]) -> tuple[T, float]:
    """What it computes, and the seconds of the fastest of some repeats."""
    seconds = []
    for _ in range(FASTEST_OF):
        began = time.perf_counter()
        value = compute()
        seconds.append(time.perf_counter() - began)
    return value, min(seconds)


def finished(name: str, where: dict[str, Any]) -> dict[str, Any]:
    """Cells of an earlier run of a benchmark, none if it ran with other settings or versions."""
    path = RESULTS / f"{name}.json"
    figures = json.loads(path.read_text()) if path.is_file() else {}
    same = all(figures.get(key) == where[key] for key in where if key != "load_average")
    return figures["cells"] if same and figures else {}


def write(name: str, figures: dict[str, Any], table: str) -> None:
    """Write results/NAME.json and results/NAME.md, and print the table."""
    write_json(RESULTS / f"{name}.json", figures)
    with atomic_write(RESULTS / f"{name}.md") as part:
        part.write_text(table)
    print(table)
