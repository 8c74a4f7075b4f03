"""One run by its configuration: validated, resumed where there is one, trained and evaluated."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from deephash.core.errors import UserError
from deephash.core.messages import MILESTONE
from deephash.core.ranks import is_rank_zero
from deephash.experiment.console import describe_run, quiet_libraries
from deephash.experiment.inputs import check_inputs, check_packages
from deephash.experiment.run_dir import (
    CONFIG,
    METRICS,
    check_places,
    check_unused,
    load_settings_to_resume,
    match_settings_to_resume,
)
from deephash.experiment.settings import validate_settings
from deephash.experiment.signals import interruptible, is_slurm_restart
from deephash.experiment.trust import allow_argument

logger = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path | None = None) -> float:
    """Train and evaluate what `cfg` says; all that it leaves lies in the run's folder.

    Args:
        cfg: of `conf/`, composed.
        folder: of a job of a sweep, in place of `run_dir`; the run that it holds is continued, as
            is that of a job which Slurm starts again.

    Returns:
        The mAP of the validation images after the last phase (their accuracy, if that only
        classifies).

    Raises:
        UserError: a setting, a file or the training is wrong in a way that a user can fix.
    """
    settings = load_settings_to_resume(cfg) if cfg.get("resume") else validate_settings(cfg)
    if is_slurm_restart():
        folder = folder or settings.run_dir
    if folder and (folder / CONFIG).is_file():
        settings = match_settings_to_resume(settings, folder)
    if settings.resume and (settings.resume / METRICS).is_file():
        logger.info("reusing the finished run in %s", settings.resume, extra=MILESTONE)
        return _objective(read_metrics(settings.resume)["validation"])
    check_inputs(settings)
    check_packages(settings)
    run_dir = settings.resume or folder or settings.run_dir
    if is_rank_zero():
        check_places(run_dir)
        if not settings.resume:
            check_unused(run_dir)
    with interruptible(run_dir / CONFIG, allow_argument(settings.model_dump(mode="json"))):
        # Takes seconds to import, so only once the settings are known to be valid.
        from deephash.experiment.pipeline import train_and_evaluate

        with quiet_libraries():  # after the import, at which Lightning sets its log level
            return _objective(train_and_evaluate(settings, run_dir))


def read_metrics(run_dir: Path) -> dict[str, Any]:
    """What a finished run wrote: metrics of test and validation, seconds, and the record.

    Raises:
        UserError: the file is damaged.
    """
    path = run_dir / METRICS
    try:
        results: dict[str, Any] = json.loads(path.read_text())
        numbers = [results["test"]["map"], results["seconds"]["total"], results["record"]["bits"]]
        numbers += results["validation"].values()
        if not all(isinstance(number, int | float) for number in numbers):
            raise TypeError("these must be numbers")
        describe_run(results["record"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{path} does not hold the metrics of a run. Delete it, and resume the run: it is "
            "evaluated again."
        ) from None
    return results


def _objective(metrics: Mapping[str, float]) -> float:
    return metrics.get("val/map", metrics.get("val/accuracy", float("nan")))
