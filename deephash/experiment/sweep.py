"""A sweep: many runs by one command. Finished ones stay; one that fails does not end the others.

Each run has a folder of its own below the sweep's, named by its overrides.
"""

import csv
import logging
import math
import re
import shlex
import statistics
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from deephash.core.errors import UserError
from deephash.core.io import atomic_write
from deephash.core.program import train_command
from deephash.core.ranks import is_rank_zero, should_report_error
from deephash.experiment.run import read_metrics, run
from deephash.experiment.run_dir import CONFIG, METRICS
from deephash.experiment.settings import validate_settings

logger = logging.getLogger(__name__)

FAILED = "failed.txt"
SWEEP_CONFIG = "multirun.yaml"  # Hydra's, of the whole sweep
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
    except SystemExit:  # stopped by Ctrl-C or a signal
        sweep_config = folder.parent / SWEEP_CONFIG
        if sweep_config.is_file() and should_report_error():
            command = continue_command(OmegaConf.load(sweep_config).hydra, folder.parent, "-m")
            print(f"Continue the sweep with: {command}", file=sys.stderr)
        raise
    except UserError as error:
        reason = str(error)
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
    if should_report_error():
        print(f"error: {_explain_failure(folder.name, reason)}", file=sys.stderr)
    if is_rank_zero():  # the other ranks end because it failed
        with atomic_write(folder / FAILED) as path:
            path.write_text(reason + "\n")
    return math.nan


def _explain_failure(run_name: str, reason: str) -> str:
    """The reason with the run's name before it, unless the reason names it."""
    return reason if run_name in reason else f"{run_name}: {reason}"


def given_overrides(hydra: Any) -> list[str]:
    """The overrides of the command line, from Hydra's own settings."""
    overrides: Any = OmegaConf.to_container(hydra.overrides, resolve=False)
    options = [option for option in overrides["hydra"] if not option.startswith("hydra.mode=")]
    return [*options, *overrides["task"]]


def continue_command(hydra: Any, run_dir: Path, *flags: str) -> str:
    """The same command with the folder in which it runs, quoted for the shell."""
    arguments = given_overrides(hydra)
    if not any(argument.startswith("run_dir=") for argument in arguments):
        arguments.append(f"run_dir={run_dir}")
    return train_command(shlex.join([*flags, *arguments]))


class SweepSummary(Callback):
    """Hydra callback: checks a sweep, and at its end writes table and plot.

    The exit code is 2 where a setting is wrong and 1 where a run failed. Hydra turns exceptions of
    callbacks into warnings, so none may leave.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse the sweep before its first run if the settings of any are wrong."""
        try:
            check_sweep(config)
        except UserError as error:
            if should_report_error():
                print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Summarise what lies in the sweep's folder."""
        try:
            num_failed = write_sweep_summary(Path(config.hydra.sweep.dir)) if is_rank_zero() else 0
        except Exception:
            traceback.print_exc()
            sys.exit(1)
        if num_failed:
            sys.exit(1)


def check_sweep(config: DictConfig) -> None:
    """Validate the settings of every run of a sweep by Hydra's own sweeper.

    Args:
        config: of the sweep, with Hydra's own settings.

    Raises:
        UserError: the sweep has no runs, or a setting of one is wrong.
    """
    sweeper = config.hydra.sweeper
    if not str(sweeper._target_).endswith(f".{BasicSweeper.__name__}"):
        return  # only another sweeper knows what it will run
    loader = GlobalHydra.instance().config_loader()
    given: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    params = [f"{name}={value}" for name, value in (sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=loader)
    overrides = parser.parse_overrides([*params, *given])
    for override in overrides:
        if override.is_discrete_sweep() and not list(override.sweep_string_iterator()):
            raise UserError(f"{override.input_line}: this sweep has no values. Name one at least.")
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    for job in jobs:
        try:
            cfg = loader.load_sweep_config(config, job)
        except (HydraException, OmegaConfBaseException):
            return  # the sweeper composes them, too, and the command line explains its error
        with open_dict(cfg):
            for name in ("hydra", "optimizer", "scheduler"):  # the latter are put into the phases
                cfg.pop(name, None)
        try:
            validate_settings(cfg)
        except UserError as error:
            if type(error.__context__) is not InterpolationResolutionError:
                raise  # otherwise it is a resolver such as ${hydra:...}, known once the job begins


def write_sweep_summary(folder: Path) -> int:
    """Write sweep.csv and sweep.png, print the table, and return how many runs failed.

    There is no plot where no run has finished.

    Args:
        folder: of the sweep.
    """
    rows = [row for path in sorted(folder.iterdir()) if path.is_dir() and (row := read_row(path))]
    with atomic_write(folder / "sweep.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    finished = [row for row in rows if row["status"] == "finished"]
    written = ["sweep.csv"]
    if finished:
        from deephash.experiment import plots  # matplotlib takes a second

        written.append("sweep.png")
        with atomic_write(folder / "sweep.png") as path:
            plots.map_over_bits(map_by_bits(finished)).savefig(path, dpi=120)
    _print_summary(folder, rows, written)
    return sum(row["status"] == "failed" for row in rows)


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
        console.print(f"failed: {_explain_failure(row['run'], row['reason'])}")
    if failed:
        console.print(
            f"{len(failed)} of {len(rows)} runs failed. The same command with "
            f"{shlex.quote(f'run_dir={folder}')} re-runs only the failed ones."
        )


def read_row(folder: Path) -> dict[str, Any] | None:
    """A run's overrides, how it ended, and its metrics; None where the folder holds no run."""
    overrides = re.split(r",(?=[\w./+~@]+=)", folder.name.replace(SLASH, "/"))
    row = {"run": folder.name, **dict(pair.split("=", 1) for pair in overrides if "=" in pair)}
    if (folder / FAILED).is_file():
        return row | {"status": "failed", "reason": (folder / FAILED).read_text().strip()}
    if not (folder / CONFIG).is_file():
        return None
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
