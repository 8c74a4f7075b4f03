"""A sweep: many runs by one command. Finished ones stay; one that fails does not end the others.

Each run has a folder of its own below the sweep's, named by the settings that are swept.
"""

import hashlib
import logging
import math
import re
import shlex
import sys
import traceback
from collections.abc import Collection
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from deephash.core.errors import UserError
from deephash.core.io import atomic_write, write_json
from deephash.core.messages import MILESTONE
from deephash.core.program import path_override, quote, train_command
from deephash.core.ranks import is_rank_zero, should_report_error
from deephash.experiment.console import log_run_of_many
from deephash.experiment.failures import explain_failures
from deephash.experiment.run import read_metrics, run
from deephash.experiment.run_dir import is_multirun, task_overrides
from deephash.experiment.settings import validate_settings
from deephash.experiment.sweep_summary import (
    FAILED,
    OVERRIDES,
    explain_failure,
    write_sweep_summary,
)

logger = logging.getLogger(__name__)

SWEEP_CONFIG = "multirun.yaml"  # Hydra's, of the whole sweep
MAX_NAME = 64  # characters of the name of a run's folder
MAX_VALUES = 10_000  # of a setting
NOT_IN_NAMES = "hydra.job.config.override_dirname.exclude_keys"


def folder_name(overrides: str) -> str:
    """The name of a run's folder: its overrides, or a part of them and a digest of all.

    Example:
        >>> folder_name("bits=12,seed=0")
        'bits=12,seed=0'
        >>> folder_name("bits=12,dataset.path=my photos/[a]")
        'bits=12,dataset.path=my-photos-a-91275ea8'
    """
    if re.fullmatch(rf"[\w.=,@+-]{{1,{MAX_NAME}}}", overrides, re.ASCII):
        return overrides
    digest = hashlib.sha256(overrides.encode(errors="surrogateescape")).hexdigest()[:8]
    words = re.sub(r"[^\w.=,@+]+", "-", overrides, flags=re.ASCII).replace("=-", "=")
    return f"{words[: MAX_NAME - 9].strip('-,') or 'run'}-{digest}"


OmegaConf.register_new_resolver("folder_name", folder_name)


def run_sweep_job(cfg: DictConfig, folder: Path) -> float:
    """One run of a sweep or a search; a failure does not end the others.

    Args:
        cfg: of the run.
        folder: of the run; one that it holds is continued.

    Returns:
        What `run` returns; NaN where it failed.
    """
    try:
        with explain_failures(folder):
            if is_rank_zero():
                (folder / FAILED).unlink(missing_ok=True)
            with log_run_of_many(folder):
                return _run(cfg, folder)
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
        print(f"error: {explain_failure(folder.name, reason)}", file=sys.stderr)
    if is_rank_zero():  # the other ranks end because it failed
        with suppress(OSError), atomic_write(folder / FAILED) as path:
            path.write_text(reason + "\n")
    return math.nan


def _run(cfg: DictConfig, folder: Path) -> float:
    if not is_multirun():  # but a trial of a search, which the test queries must not judge
        return run(cfg, folder)
    if is_rank_zero():
        pairs = [override.partition("=")[::2] for override in task_overrides()]
        write_json(folder / OVERRIDES, {name.lstrip("+"): value for name, value in pairs})
    value = run(cfg, folder)
    if is_rank_zero():
        results = read_metrics(folder)
        seconds = results["seconds"]["total"]
        line = "finished: test mAP %.4f, %.1f s"
        logger.info(line, results["test"]["map"], seconds, extra=MILESTONE)
    return value


def given_overrides(hydra: Any) -> list[str]:
    """The overrides of the command line, from Hydra's own settings."""
    overrides: Any = OmegaConf.to_container(hydra.overrides, resolve=False)
    ours = ("hydra.mode=", f"{NOT_IN_NAMES}=")
    options = [option for option in overrides["hydra"] if not option.startswith(ours)]
    return [*options, *overrides["task"]]


def continue_command(hydra: Any, run_dir: Path, *flags: str) -> str:
    """The same command with the folder in which it runs, quoted for the shell."""
    arguments = given_overrides(hydra)
    if not any(argument.startswith("run_dir=") for argument in arguments):
        arguments.append(path_override("run_dir", run_dir))
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
        folder = Path(config.hydra.sweep.dir)
        try:
            with explain_failures(folder):
                num_failed = write_sweep_summary(folder) if is_rank_zero() else 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        except Exception:
            traceback.print_exc()
            sys.exit(1)
        if num_failed:
            sys.exit(1)


def check_sweep(config: DictConfig) -> None:
    """Validate the settings of every run of a sweep by Hydra's own sweeper, and name the runs.

    Args:
        config: of the sweep, with Hydra's own settings; changed.

    Raises:
        UserError: the sweep has no runs, a setting of one is wrong, or two share a folder.
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
        if override.is_discrete_sweep():
            _check_values(override)
    swept = {o.key_or_group for o in overrides if o.is_sweep_override()}
    if swept:
        _name_by(config, swept, {o.key_or_group for o in overrides} - swept)
    folders: set[str] = set()
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    for job in jobs:
        try:
            cfg = loader.load_sweep_config(config, job)
        except (HydraException, OmegaConfBaseException):
            return  # the sweeper composes them, too, and the command line explains its error
        _check_folder(cfg, folders)
        with open_dict(cfg):
            for name in ("hydra", "optimizer", "scheduler"):  # the latter are put into the phases
                cfg.pop(name, None)
        try:
            validate_settings(cfg)
        except UserError as error:
            if type(error.__context__) is not InterpolationResolutionError:
                raise  # otherwise it is a resolver such as ${hydra:...}, known once the job begins


def _check_values(override: Override) -> None:
    """Refuse a sweep of no values, and a range that cannot be counted or does not end."""
    try:
        count = sum(1 for _ in islice(override.sweep_string_iterator(), MAX_VALUES + 1))
    except (ValueError, ArithmeticError):
        problem = "this range has no values. Write range(FROM,TO)."
        raise UserError(f"{override.input_line}: {problem}") from None
    if not count:
        raise UserError(f"{override.input_line}: this sweep has no values. Name one at least.")
    if count > MAX_VALUES:
        raise UserError(f"{override.input_line}: more than {MAX_VALUES:,} values. Name fewer.")


def _name_by(config: DictConfig, swept: Collection[str], fixed: Collection[str]) -> None:
    """Leave out of the names of the runs' folders what is the same in all."""
    given: Any = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
    if not any(option.startswith((NOT_IN_NAMES, "hydra.sweep.subdir")) for option in given):
        names = ",".join(quote(name) for name in sorted(fixed))
        with read_write(config.hydra):  # each run is composed from these overrides
            config.hydra.overrides.hydra.append(f"{NOT_IN_NAMES}=[{names}]")


def _check_folder(cfg: DictConfig, folders: set[str]) -> None:
    """Refuse a run that has the folder of another.

    Args:
        cfg: of the run, with Hydra's own settings.
        folders: those of the runs before; changed.
    """
    try:
        folder = str(cfg.hydra.sweep.subdir)
    except OmegaConfBaseException:  # known once the job begins, such as its number
        return
    if folder in folders:
        raise UserError(
            f"{folder}: two runs of this sweep have this folder. Name each value once, or change "
            "hydra.sweep.subdir."
        )
    folders.add(folder)
