"""Machine description, timing and result files, shared by all benchmarks."""

import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from deephash.core.io import atomic_write, write_json
from deephash.experiment.record import processor_name

ROOT = Path(__file__).resolve().parent.parent  # of the checkout
RESULTS = ROOT / "benchmarks" / "results"
REPEATS = 5  # of a timed computation

T = TypeVar("T")


def machine_info(*libraries: str) -> dict[str, Any]:
    """Processor, cores, load average and versions.

    Args:
        libraries: packages whose versions are included, besides Python, deephash and torch.
    """
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("deephash", "torch", *libraries)},
        },
    }


def describe_machine(info: dict[str, Any]) -> str:
    """One sentence for a table, from `machine_info` or the record of a run."""
    versions = ", ".join(f"{name} {number}" for name, number in info["versions"].items())
    gpu = f"{info['gpu']}; " if info.get("gpu") else ""
    return f"{gpu}{info['processor']}, {info['cores']} cores; {versions}."


def time_fastest(compute: Callable[[], T]) -> tuple[T, float]:
    """Call `compute` several times; return its value and the seconds of the fastest call."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        value = compute()
        seconds.append(time.perf_counter() - start)
    return value, min(seconds)


def load_matching_cells(name: str, conditions: dict[str, Any]) -> dict[str, Any]:
    """The cells of results/NAME.json; empty if they were measured under other conditions.

    Args:
        name: of the result file, without suffix.
        conditions: settings and `machine_info`; the load average is not compared.
    """
    path = RESULTS / f"{name}.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    is_same = all(results.get(k) == v for k, v in conditions.items() if k != "load_average")
    return results["cells"] if results and is_same else {}


def write_results(name: str, results: dict[str, Any], table: str) -> None:
    """Write results/NAME.json and results/NAME.md, and print the table."""
    write_json(RESULTS / f"{name}.json", results)
    with atomic_write(RESULTS / f"{name}.md") as path:
        path.write_text(table)
    print(table)
