"""Where curves and results go: W&B, a CSV file, TensorBoard. The only module that knows wandb.

A logger of `conf/logger/` is a function of the run's folder, its name, all settings and the sweep
that it is part of, beside settings of its own.
"""

import csv
import json
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from deephash.core.errors import UserError
from deephash.core.io import atomic_write, write_json
from deephash.training.callbacks import Row

log = logging.getLogger(__name__)

STEP = "trainer/global_step"  # as Lightning's W&B logger calls it
BEST = {"val/map": "max", "val/accuracy": "max", "val/loss": "min"}


class CsvLogger(Logger):
    """All curves in one CSV file: a row per step, a column per curve."""

    starts_empty = True  # a resumed run writes the file anew

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[Row] = []

    @property
    def name(self) -> str:
        """The logger's name, which Lightning asks for."""
        return "csv"

    @property
    def version(self) -> str:
        """Empty: a run has a single file."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Not written here: config.yaml has them."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep a row until the next `save`."""
        self.rows.append({"step": float(step or 0), **metrics})

    def save(self) -> None:
        """Write all rows."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_write(self.path) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)


def csv_logger(run_dir: Path, name: str, config: dict[str, Any], sweep: str | None) -> CsvLogger:
    """`curves.csv` in the run's folder."""
    del name, config, sweep
    return CsvLogger(run_dir / "curves.csv")


def tensorboard_logger(
    run_dir: Path, name: str, config: dict[str, Any], sweep: str | None
) -> TensorBoardLogger:
    """TensorBoard event files in `tensorboard/` of the run's folder.

    Raises:
        UserError: tensorboard is not installed.
    """
    del name, config, sweep
    try:
        logger = TensorBoardLogger(run_dir, name="tensorboard", version="")
    except ModuleNotFoundError:
        raise UserError(
            "logger=tensorboard needs a package: pip install 'deephash[tensorboard]'"
        ) from None
    for events in (run_dir / "tensorboard").glob("events.out.tfevents.*"):
        events.unlink()  # of a stopped run, which may have logged steps that are repeated
    logger.starts_empty = True  # type: ignore[attr-defined]
    return logger


class StepWandbLogger(WandbLogger):
    """A W&B logger that leaves out what an earlier session of the run has logged.

    Args:
        run: of W&B.
        logged: where the last step of each curve is kept.
        is_new: whether there was no earlier session.
    """

    def __init__(self, run: Any, logged: Path, *, is_new: bool) -> None:
        super().__init__(experiment=run)
        self.logged = logged
        # What the checkpoint has, but no session logged, is logged now. Version 0.2 kept no steps.
        self.starts_empty = is_new or logged.is_file()
        self._last: dict[str, int] = {}
        if logged.is_file() and not is_new:
            self._last = json.loads(logged.read_text())
        self._earlier = dict(self._last)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the values of a step that are new."""
        at = step or 0
        new = {key: v for key, v in metrics.items() if at > self._earlier.get(key, -1)}
        if new:
            super().log_metrics(new, step=at)
            self._last |= dict.fromkeys(new, at)

    def save(self) -> None:
        """Keep the last step of each curve."""
        write_json(self.logged, self._last)


def wandb_logger(
    run_dir: Path,
    name: str,
    config: dict[str, Any],
    sweep: str | None,
    *,
    project: str,
    mode: Literal["online", "offline"] | None,
    group: str | None,
    job_type: str | None,
    notes: str | None,
) -> WandbLogger:
    """One W&B run for all phases; a resumed training continues it.

    The x axis of all curves is the step. The summary holds the last and the best validation.

    Args:
        run_dir: of the run; its W&B files lie in `wandb/` below it.
        name: shown in W&B.
        config: all settings; its `tags` are those of the W&B run.
        sweep: that the run is part of; the group of its runs in W&B.
        project: in W&B.
        mode: None: the environment's WANDB_MODE, else online with an API key, else offline.
            Nothing ever asks for a key.
        group: in W&B; None: the sweep's.
        job_type: in W&B, by which the runs of a group can be told apart.
        notes: in W&B, in Markdown.

    Raises:
        UserError: W&B does not start.
    """
    import wandb  # takes a second, and other loggers do not need it

    id_file = run_dir / "wandb" / "deephash-run-id"
    is_new = not id_file.is_file()
    run_id = secrets.token_hex(4) if is_new else id_file.read_text()
    mode_used = choose_wandb_mode(mode)
    try:
        run = wandb.init(
            id=run_id,
            resume=None if is_new else "allow",
            dir=run_dir,
            name=name,
            project=project,
            group=group or sweep,
            job_type=job_type,
            notes=notes,
            config=config,
            tags=config.get("tags") or None,
            mode=mode_used,  # type: ignore[arg-type]
            settings=wandb.Settings(silent=True),
        )
    except (wandb.Error, OSError, ValueError) as error:
        is_long = isinstance(error, ValueError)  # of a setting, such as one of the environment
        reason = " ".join(str(error).split()) if is_long else str(error).splitlines()[0]
        raise UserError(
            f"logger=wandb: W&B did not start ({reason.partition(' [type=')[0]}). "
            "Use logger.wandb.mode=offline or logger=csv."
        ) from None
    with atomic_write(id_file) as path:
        path.write_text(run_id)
    run.define_metric(STEP, hidden=True)
    run.define_metric("*", step_metric=STEP)
    for key, best in BEST.items():
        run.define_metric(key, step_metric=STEP, summary=f"{best},last")
    if mode_used == "online":
        log.info("W&B run: %s", run.url)
    elif mode_used == "offline":
        folder = Path(run.dir).parent
        log.info("W&B run: %s (wandb leet FOLDER shows it, wandb sync FOLDER uploads it)", folder)
    return StepWandbLogger(run, run_dir / "wandb" / "deephash-logged.json", is_new=is_new)


def choose_wandb_mode(mode: str | None) -> str:
    """The W&B mode that is set, else the environment's, else online with an API key."""
    return mode or os.environ.get("WANDB_MODE") or ("online" if _has_api_key() else "offline")


def _has_api_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        hosts = netrc(os.environ.get("NETRC")).hosts
    except (OSError, NetrcParseError):
        return False
    return urlparse(server).hostname in hosts


def log_results(
    loggers: Sequence[Logger], step: int, metrics: Mapping[str, float], plots: Mapping[str, Path]
) -> None:
    """Pass the final metrics and the plots to the loggers: one table, not a chart for each value.

    `curves.csv` holds curves alone: the metrics are in metrics.json beside it.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            table = wandb.Table(["metric", "value"], [[k, v] for k, v in metrics.items()])
            images = {f"plots/{key}": wandb.Image(str(path)) for key, path in plots.items()}
            logger.experiment.log({"test/table": table, **images, STEP: step})
            logger.experiment.summary.update({f"test/{key}": v for key, v in metrics.items()})
        elif isinstance(logger, TensorBoardLogger):
            rows = [f"| {key} | {value:.6g} |" for key, value in metrics.items()]
            text = "\n".join(["| metric | value |", "|---|---|", *rows])
            logger.experiment.add_text("test", text, global_step=step)
        elif not isinstance(logger, CsvLogger):  # of the user's own
            logger.log_metrics({f"test/{key}": value for key, value in metrics.items()}, step=step)
        logger.save()


def finish(loggers: Sequence[Logger], *, succeeded: bool) -> None:
    """Close the loggers, so that their files are complete."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=0 if succeeded else 1)
        else:
            logger.finalize("success" if succeeded else "failed")
