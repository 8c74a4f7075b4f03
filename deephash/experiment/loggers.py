"""Where the curves go: W&B, a file, nowhere. The only room that knows wandb."""

import os
import secrets
from collections.abc import Mapping, Sequence
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

import wandb
from pytorch_lightning.loggers import Logger, WandbLogger

from deephash.core.errors import UserError
from deephash.core.io import atomic_write
from deephash.training.callbacks import CsvLogger


def csv_logger(run_dir: Path, name: str, config: dict[str, Any], sweep: str | None) -> CsvLogger:
    """`curves.csv` in the run's folder."""
    del name, config, sweep
    return CsvLogger(run_dir / "curves.csv")


def no_logger(run_dir: Path, name: str, config: dict[str, Any], sweep: str | None) -> None:
    """No logger."""
    del run_dir, name, config, sweep


def wandb_logger(
    run_dir: Path,
    name: str,
    config: dict[str, Any],
    sweep: str | None,
    *,
    project: str,
    mode: Literal["online", "offline"] | None,
    group: str | None,
) -> WandbLogger:
    """One W&B run for the whole training; a resumed training goes on in the same one.

    Args:
        run_dir: of the run; its W&B files lie in `wandb/` below it.
        name: shown in W&B.
        config: all settings.
        sweep: which the run is one of; the group of its runs in W&B.
        project: in W&B.
        mode: None: the environment's WANDB_MODE, else online where an API key is known, else
            offline. Nothing ever asks for one.
        group: in W&B; None: the sweep's.
    """
    known = run_dir / "wandb" / "deephash-run-id"
    run_id = known.read_text() if known.is_file() else secrets.token_hex(4)
    chosen = chosen_mode(mode)
    try:
        run = wandb.init(
            id=run_id,
            resume="allow" if known.is_file() else None,
            dir=run_dir,
            name=name,
            project=project,
            group=group or sweep,
            config=config,
            mode=chosen,  # type: ignore[arg-type]
            settings=wandb.Settings(silent=True),
        )
    except (wandb.Error, OSError) as error:
        raise UserError(
            f"logger=wandb: W&B did not start ({str(error).splitlines()[0]}). "
            "Use logger.mode=offline or logger=csv."
        ) from None
    with atomic_write(known) as path:
        path.write_text(run_id)
    if chosen == "online":
        print(f"W&B run: {run.url}")
    elif chosen == "offline":
        folder = Path(run.dir).parent
        print(f"W&B run: {folder} (view: wandb leet {folder}; upload: wandb sync {folder})")
    return WandbLogger(experiment=run)


def chosen_mode(mode: str | None) -> str:
    """The W&B mode asked for, else the environment's, else online where an API key is known."""
    return mode or os.environ.get("WANDB_MODE") or ("online" if _has_api_key() else "offline")


def _has_api_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        known = netrc(os.environ.get("NETRC")).hosts
    except (OSError, NetrcParseError):
        return False
    return urlparse(server).hostname in known


def report(
    loggers: Sequence[Logger], step: int, results: Mapping[str, float], pictures: Mapping[str, Path]
) -> None:
    """Hand the final figures (`test/...`) and the pictures to the loggers."""
    for logger in loggers:
        logger.log_metrics({f"test/{key}": value for key, value in results.items()}, step=step)
        if isinstance(logger, WandbLogger):
            table = wandb.Table(["metric", "value"], [[k, v] for k, v in results.items()])
            images = {key: wandb.Image(str(path)) for key, path in pictures.items()}
            logger.experiment.log({"test/table": table, **images})
        logger.save()


def finish(loggers: Sequence[Logger], *, succeeded: bool) -> None:
    """End the W&B run, so that its files are complete."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=0 if succeeded else 1)
