"""The summary of a sweep: a table of its runs, and plots over them."""

import csv
import json
import re
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deephash.core.errors import UserError
from deephash.core.io import atomic_write
from deephash.core.program import path_override
from deephash.experiment.console import describe_run
from deephash.experiment.run import read_metrics
from deephash.experiment.run_dir import CONFIG, METRICS

FAILED = "failed.txt"
OVERRIDES = "overrides.json"  # of a run of a sweep
POINTS = "plots/precision_recall.csv"  # of a run
MAX_TITLES = 3


def write_sweep_summary(folder: Path) -> int:
    """Write sweep.csv and plots, print the table, and return how many runs failed.

    There is no plot where no run has finished. Runs that lie there, but are of no sweep of this
    version, are left out, and named.

    Args:
        folder: of the sweep.
    """
    paths = sorted(folder.iterdir(), key=lambda path: _split_numbers(path.name))
    found = {path: read_row(path) for path in paths if path.is_dir()}
    rows = [row for row in found.values() if row]
    others = [
        path.name
        for path, row in found.items()
        if not row and any((path / name).is_file() for name in (CONFIG, FAILED))
    ]
    with atomic_write(folder / "sweep.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    finished = [row for row in rows if row["status"] == "finished"]
    written = ["sweep.csv"]
    if finished:
        written += [path.name for path in _draw(folder, finished)]
    _print_summary(folder, rows, written)
    if others:
        print(f"Left out, as no runs of this sweep: {', '.join(others)}")
    return sum(row["status"] == "failed" for row in rows)


def _split_numbers(name: str) -> list[str | int]:
    """A key that puts `bits=8` before `bits=12`."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))]


def _draw(folder: Path, rows: Sequence[dict[str, Any]]) -> list[Path]:
    """The mAP over code length and, where the runs have them, the precision-recall curves."""
    from deephash.experiment import plots  # matplotlib takes a second

    records = [read_metrics(folder / row["run"])["record"] for row in rows]
    titles = list(dict.fromkeys(describe_run(record, bits=False) for record in records))
    title = "\n".join(titles if len(titles) <= MAX_TITLES else [folder.name])
    drawn = [plots.save(folder / "sweep", plots.map_over_bits(map_by_bits(rows)), title)]
    lines = curves_by_settings(folder, rows)
    if lines:
        figure = plots.precision_recall(lines)
        drawn.append(plots.save(folder / "sweep_precision_recall", figure, title))
    return drawn


def _print_summary(folder: Path, rows: Sequence[dict[str, Any]], written: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    names = varying_settings(rows)
    table = Table(*names, "status", "test mAP")
    for row in rows:
        value = f"{row['map']:.4f}" if "map" in row else ""
        table.add_row(*(str(row.get(name, "")) for name in names), row["status"], value)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    console.print(f"{folder}/{', '.join(written)}")
    failed = [row for row in rows if row["status"] == "failed"]
    for row in failed:
        console.print(f"failed: {explain_failure(row['run'], row['reason'])}")
    if failed:
        console.print(
            f"{len(failed)} of {len(rows)} runs failed. The same command with "
            f"{shlex.quote(path_override('run_dir', folder))} re-runs only the failed ones."
        )


def explain_failure(run_name: str, reason: str) -> str:
    """The reason with the run's name before it, unless the reason names it."""
    is_named = re.search(rf"(^|/){re.escape(run_name)}(?![\w.,])", reason)
    return reason if is_named else f"{run_name}: {reason}"


def read_row(folder: Path) -> dict[str, Any] | None:
    """A run's overrides, how it ended, and its metrics; None for a folder of no run of a sweep."""
    if not (folder / OVERRIDES).exists():
        return None
    try:
        overrides = json.loads((folder / OVERRIDES).read_text())
    except (OSError, ValueError, RecursionError):
        overrides = None
    row: dict[str, Any] = {"run": folder.name}
    if not isinstance(overrides, dict):
        reason = f"{folder / OVERRIDES} is damaged. Delete it, and start the sweep again."
        return row | {"status": "failed", "reason": reason}
    row |= overrides
    if (folder / FAILED).is_dir():
        reason = f"{folder / FAILED} must be a file. Move away what lies there."
        return row | {"status": "failed", "reason": reason}
    if (folder / FAILED).is_file():
        reason = (folder / FAILED).read_text(errors="replace").strip()
        return row | {"status": "failed", "reason": reason}
    if (folder / METRICS).is_file():
        try:
            results = read_metrics(folder)
        except UserError as error:
            return row | {"status": "failed", "reason": str(error)}
        row["bits"] = results["record"]["bits"]
        metrics = {"map": results["test"]["map"], **results["validation"]}
        return row | {"status": "finished", **metrics, "seconds": results["seconds"]["total"]}
    return row | {"status": "unfinished"}


def varying_settings(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The settings that are not the same in all runs."""
    others = ("run", "status", "reason", "map", "seconds")
    names = dict.fromkeys(name for row in rows for name in row)
    settings = [name for name in names if name not in others and not name.startswith("val/")]
    return [name for name in settings if len({str(row.get(name)) for row in rows}) > 1]


def map_by_bits(rows: Sequence[dict[str, Any]]) -> dict[str, dict[int, tuple[float, float]]]:
    """Mean and deviation of the mAP over the seeds.

    Args:
        rows: of finished runs.

    Returns:
        By what else was swept, by code length.
    """
    names = [name for name in varying_settings(rows) if name not in ("bits", "seed")]
    values: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        label = ", ".join(f"{name}={row.get(name)}" for name in names)
        values.setdefault(label, {}).setdefault(row["bits"], []).append(row["map"])
    return {
        label: {
            bits: (statistics.mean(maps), statistics.stdev(maps) if len(maps) > 1 else 0.0)
            for bits, maps in sorted(by_bits.items())
        }
        for label, by_bits in values.items()
    }


def curves_by_settings(
    folder: Path, rows: Sequence[dict[str, Any]]
) -> dict[str, tuple[list[float], list[float]]]:
    """Precision and recall by Hamming radius, mean over the seeds.

    Args:
        folder: of the sweep.
        rows: of finished runs.

    Returns:
        By what was swept.
    """
    import numpy as np  # takes a while, and a sweep begins without it

    names = [name for name in varying_settings(rows) if name != "seed"]
    curves: dict[str, list[np.ndarray]] = {}
    for row in sorted(rows, key=lambda row: row["bits"]):
        path = folder / row["run"] / POINTS
        if path.is_file():
            label = ", ".join(f"{name}={row.get(name)}" for name in names)
            try:
                lines = path.read_text().splitlines()[1:]
                points = np.array([line.split(",") for line in lines], dtype=float)
                if points.shape != (row["bits"] + 1, 3):
                    raise ValueError
                curves.setdefault(label, []).append(points)
            except ValueError:
                print(f"Left out of the plot, as it is damaged: {path}")
    means = {label: np.mean(several, axis=0) for label, several in curves.items()}
    return {label: (mean[:, 1].tolist(), mean[:, 2].tolist()) for label, mean in means.items()}
