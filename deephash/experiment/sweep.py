"""A sweep: many runs by one command. Finished ones stay; one that fails does not end the others.

Each run has a folder of its own below the sweep's, named by its overrides.
"""

import csv
import json
import logging
import math
import re
import statistics
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from deephash.core.errors import UserError
from deephash.core.io import atomic_write
from deephash.core.ranks import is_rank_zero, should_report_error
from deephash.experiment.run import run
from deephash.experiment.run_dir import CONFIG, METRICS

logger = logging.getLogger(__name__)

FAILED = "failed.txt"
SLASH = "%2F"  # in the name of a run's folder, so that all lie side by side

OmegaConf.register_new_resolver("flat", lambda overrides: overrides.replace("/", SLASH))


def run_sweep_job(cfg: DictConfig, folder: Path) -> float:
    """One run of a sweep or a search; a failure does not end the others.

    Args:
        cfg: of the run.
        folder: of the run; one that it holds is continued.

    Returns:
        What `run` returns; NaN where it failed.
    """
    if is_rank_zero():
        (folder / FAILED).unlink(missing_ok=True)
    try:
        return run(cfg, folder)
    except UserError as error:
        reason = str(error)
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
    if should_report_error():
        print(f"error: {folder.name}: {reason}", file=sys.stderr)
    if is_rank_zero():  # the other ranks end because it failed
        with atomic_write(folder / FAILED) as path:
            path.write_text(reason + "\n")
    return math.nan


class SweepSummary(Callback):
    """Hydra callback: at the end of a sweep its table and plot; exit code 1 if a run failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Summarise what lies in the sweep's folder."""
        if is_rank_zero() and write_sweep_summary(Path(config.hydra.sweep.dir)):
            sys.exit(1)


def write_sweep_summary(folder: Path) -> int:
    """Write sweep.csv and sweep.png, print the table, and return how many runs failed.

    Args:
        folder: of the sweep.
    """
    rows = [row for path in sorted(folder.iterdir()) if path.is_dir() and (row := read_row(path))]
    with atomic_write(folder / "sweep.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    finished = [row for row in rows if row["status"] == "finished"]
    if finished:
        from deephash.experiment import plots  # matplotlib takes a second

        with atomic_write(folder / "sweep.png") as path:
            plots.map_over_bits(map_by_bits(finished)).savefig(path, dpi=120)
    _print_summary(folder, rows)
    return sum(row["status"] == "failed" for row in rows)


def _print_summary(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    names = varying_settings(rows)
    table = Table(*names, "status", "test mAP")
    for row in rows:
        value = f"{row['map']:.4f}" if "map" in row else ""
        table.add_row(*(str(row.get(name, "")) for name in names), row["status"], value)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    console.print(f"{folder}/sweep.csv, sweep.png")
    failed = [row for row in rows if row["status"] == "failed"]
    for row in failed:
        console.print(f"failed: {row['run']}: {row['reason']}")
    if failed:
        console.print(
            f"{len(failed)} of {len(rows)} runs failed. The same command with run_dir={folder} "
            "runs these alone."
        )


def read_row(folder: Path) -> dict[str, Any] | None:
    """A run's overrides, how it ended, and its metrics; None where the folder holds no run."""
    overrides = re.split(r",(?=[\w./+~@]+=)", folder.name.replace(SLASH, "/"))
    row = {"run": folder.name, **dict(pair.split("=", 1) for pair in overrides if "=" in pair)}
    if (folder / FAILED).is_file():
        return row | {"status": "failed", "reason": (folder / FAILED).read_text().strip()}
    if (folder / METRICS).is_file():
        results = json.loads((folder / METRICS).read_text())
        row["bits"] = results["record"]["bits"]
        metrics = {"map": results["test"]["map"], **results["validation"]}
        return row | {"status": "finished", **metrics, "seconds": results["seconds"]["total"]}
    return row | {"status": "unfinished"} if (folder / CONFIG).is_file() else None


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
