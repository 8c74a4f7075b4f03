"""A sweep, many runs by one command: what is finished stays, what failed is told, all is summed up.

Each run has a folder of its own below the sweep's, named by what was said on the command line.
"""

import csv
import json
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
from rich.console import Console
from rich.table import Table

from deephash.core.errors import UserError
from deephash.core.io import atomic_write
from deephash.core.ranks import is_rank_zero, should_report_error
from deephash.experiment import plots
from deephash.experiment.run import run
from deephash.experiment.run_dir import CONFIG, FIGURES

FAILED = "failed.txt"
SLASH = "%2F"  # in the name of a run's folder, so that all lie side by side

OmegaConf.register_new_resolver("flat", lambda said: said.replace("/", SLASH))


def run_sweep_job(cfg: DictConfig, folder: Path) -> float:
    """A run of a sweep or a search, which goes on when it fails.

    Args:
        cfg: of the run.
        folder: of the run; one that it holds is gone on with.

    Returns:
        what `run` does; NaN where it failed.
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
    if is_rank_zero():  # what ends the others is that it failed
        with atomic_write(folder / FAILED) as path:
            path.write_text(reason + "\n")
    return math.nan


class Summary(Callback):
    """At the end of a sweep its table and picture; exit code 1 if a run failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Sum up what lies in the sweep's folder."""
        if not is_rank_zero():
            return
        failed = write_sweep_summary(Path(config.hydra.sweep.dir))
        if failed:
            sys.exit(1)


def write_sweep_summary(folder: Path) -> int:
    """Write sweep.csv and sweep.png, print the table; how many runs failed.

    Args:
        folder: of the sweep.
    """
    rows = [row_of(path) for path in sorted(folder.iterdir()) if path.is_dir()]
    rows = [row for row in rows if row["status"]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(folder / "sweep.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    finished = [row for row in rows if row["status"] == "finished"]
    if finished:
        with atomic_write(folder / "sweep.png") as path:
            plots.map_over_bits(lines_of(finished)).savefig(path, dpi=120)
    failed = [row for row in rows if row["status"] == "failed"]
    console = Console(highlight=False, markup=False, soft_wrap=True)
    swept = varied(rows)
    table = Table(*swept, "status", "test mAP")
    for row in rows:
        value = f"{row['map']:.4f}" if "map" in row else ""
        table.add_row(*(str(row.get(name, "")) for name in swept), row["status"], value)
    console.print(table)
    console.print(f"{folder}/sweep.csv, sweep.png")
    for row in failed:
        console.print(f"failed: {row['run']}: {row['reason']}")
    if failed:
        console.print(
            f"{len(failed)} of {len(rows)} runs failed. The same command with run_dir={folder} "
            "runs these alone."
        )
    return len(failed)


def row_of(folder: Path) -> dict[str, Any]:
    """What a run was told, how it ended, and its figures; without a status if it is no run."""
    told = re.split(r",(?=[\w./+~@]+=)", folder.name.replace(SLASH, "/"))
    row = {"run": folder.name, **dict(pair.split("=", 1) for pair in told if "=" in pair)}
    if (folder / FAILED).is_file():
        return row | {"status": "failed", "reason": (folder / FAILED).read_text().strip()}
    if (folder / FIGURES).is_file():
        found = json.loads((folder / FIGURES).read_text())
        figures = {"map": found["test"]["map"], **found["validation"]}
        seconds = found["seconds"]["total"]
        row["bits"] = found["record"]["bits"]
        return row | {"status": "finished", **figures, "seconds": seconds}
    return row | {"status": "unfinished" if (folder / CONFIG).is_file() else ""}


def varied(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Which settings are not the same in all runs."""
    figures = ("run", "status", "reason", "map", "seconds")
    names = dict.fromkeys(name for row in rows for name in row)
    settings = [name for name in names if name not in figures and not name.startswith("val/")]
    return [name for name in settings if len({str(row.get(name)) for row in rows}) > 1]


def lines_of(rows: Sequence[dict[str, Any]]) -> dict[str, dict[int, tuple[float, float]]]:
    """Mean and deviation of the mAP over the seeds: by what else was swept, by code length."""
    others = [name for name in varied(rows) if name not in ("bits", "seed")]
    values: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        line = ", ".join(f"{name}={row.get(name)}" for name in others)
        values.setdefault(line, {}).setdefault(row["bits"], []).append(row["map"])
    return {
        line: {
            bits: (statistics.mean(some), statistics.stdev(some) if len(some) > 1 else 0.0)
            for bits, some in sorted(by_bits.items())
        }
        for line, by_bits in values.items()
    }
