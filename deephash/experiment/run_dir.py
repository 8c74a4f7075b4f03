"""A run's folder: lock_run_dir, found again, gone on with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from deephash.core import ranks
from deephash.core.errors import UserError
from deephash.core.io import atomic_write
from deephash.experiment.settings import Settings, checked

CONFIG, FIGURES, LOCK = "config.yaml", "metrics.json", ".lock"
STUDY = "study.log"  # of a search, beside its runs' folders
MAY_CHANGE_ON_RESUME = ("trainer", "logger", "data_dir", "cache_dir", "resume", "run_dir")


def is_multirun() -> bool:
    """Whether Hydra runs one of many jobs."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def sweep_name(folder: Path) -> str | None:
    """The name of the sweep or search that a run's folder lies in."""
    beside = folder.absolute().parent
    of_many = any((beside / left).is_file() for left in ("multirun.yaml", STUDY))
    return "/".join(beside.parts[-2:]) if of_many else None


def unused_folder(settings: Settings) -> Path:
    """Where this run writes: `run_dir`, which must not hold a run."""
    if ranks.is_rank_zero():
        _check_unused(settings.run_dir)
    return settings.run_dir


def _check_unused(folder: Path) -> None:
    if (folder / CONFIG).exists():
        raise UserError(
            f"run_dir={folder} already holds a run. Go on with it by resume={folder}, "
            "or name another run_dir."
        )


@contextmanager
def lock_run_dir(folder: Path, settings: Settings) -> Iterator[None]:
    """Make the folder, write the configuration, with which a stopped run goes on, and hold it.

    Raises:
        UserError: another process trains this run, or the folder cannot be written to.
    """
    if not ranks.is_rank_zero():
        yield
        return
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"run_dir={folder}: another process trains this run. Wait for it, or name another."
        ) from None
    except OSError as error:
        raise UserError(
            f"run_dir={folder} cannot be written to ({error.strerror}). Name another run_dir."
        ) from None
    try:
        if not settings.resume:
            _check_unused(folder)  # again: of two that began at once, one had to wait
            with atomic_write(folder / CONFIG) as path:
                path.write_text(OmegaConf.to_yaml(settings.model_dump(mode="json")))
        yield
    finally:
        lock.release()


def resumed(cfg: DictConfig) -> Settings:
    """The settings that the stopped run began with, but where and how it runs."""
    folder = Path(cfg.resume)
    if not (folder / CONFIG).is_file():
        raise UserError(f"resume={folder}: no run is there (no {CONFIG}). Name a run's folder.")
    saved = cast(DictConfig, OmegaConf.load(folder / CONFIG))
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    for override in overrides:
        group = override.lstrip("+~").partition("=")[0].partition(".")[0]
        if group not in MAY_CHANGE_ON_RESUME:
            raise UserError(
                f"{override} cannot be given with resume={folder}: a run goes on with the settings "
                f"it began with. May change: {', '.join(MAY_CHANGE_ON_RESUME[:-2])}."
            )
        if group == "data_dir":
            _move(saved, cfg.data_dir)
        else:
            saved[group] = cfg[group]
    saved.resume = str(folder)
    return checked(saved)


def resume_settings(settings: Settings, folder: Path) -> Settings:
    """These settings, for the run that `folder` holds.

    Raises:
        UserError: that run has others.
    """
    found = cast(DictConfig, OmegaConf.load(folder / CONFIG))
    _move(found, str(settings.data_dir))
    saved = checked(found).model_dump()
    for name, value in settings.model_dump().items():
        if name not in MAY_CHANGE_ON_RESUME and saved[name] != value:
            raise UserError(
                f"{folder} holds a run with {name}={saved[name]}, this one has {name}={value}. "
                "Name another run_dir."
            )
    return settings.model_copy(update={"resume": folder})


def _move(saved: DictConfig, data_dir: str) -> None:
    """Give `data_dir` another value, also to the settings that lie in it."""
    before, saved.data_dir = str(saved.data_dir), data_dir

    def moved(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: moved(entry) for key, entry in node.items()}
        if isinstance(node, list):
            return [moved(entry) for entry in node]
        inside = isinstance(node, str) and f"{node}/".startswith(f"{before}/")
        return data_dir + node.removeprefix(before) if inside else node

    for name in ("dataset", "protocol"):
        saved[name] = moved(OmegaConf.to_container(saved[name]))
