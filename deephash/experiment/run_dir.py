"""The folder of a run: locked while it is at work, found again, resumed."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from deephash.core.errors import UserError
from deephash.core.io import atomic_write, remove_partial_files
from deephash.core.program import CONFIG, path_in_shell
from deephash.core.ranks import is_rank_zero
from deephash.experiment.renames import add_later_settings, is_old_config, upgrade_config
from deephash.experiment.settings import Settings, folder_to_resume, validate_settings
from deephash.experiment.trust import check_interpolations, check_targets, packages_to_trust

METRICS, LOCK = "metrics.json", ".lock"
STUDY = "study.log"  # of a search for settings, beside the folders of its runs
MAY_CHANGE_ON_RESUME = (
    "trainer",
    "logger",
    "tags",
    "data_dir",
    "cache_dir",
    "allow",
    "resume",
    "run_dir",
)
FILES = (CONFIG, METRICS, "record.json", "split.npz")
FOLDERS = ("checkpoints", "codes", "plots")


def is_multirun() -> bool:
    """Whether Hydra runs one of many jobs."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def task_overrides() -> list[str]:
    """The overrides of this run that are not Hydra's own, as given: interpolations stay."""
    if not HydraConfig.initialized():
        return []
    overrides: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return list(overrides)


def sweep_name(run_dir: Path) -> str | None:
    """The name of the sweep or search that a run is part of; None for a single run."""
    parent = run_dir.absolute().parent
    is_part = any((parent / name).is_file() for name in ("multirun.yaml", STUDY))
    return "/".join(parent.parts[-2:]) if is_part else None


def check_unused(run_dir: Path) -> None:
    """Refuse a folder that holds a run.

    Raises:
        UserError: the folder holds a run.
    """
    if (run_dir / CONFIG).exists():
        raise UserError(
            f"run_dir={run_dir} already holds a run. Continue it by "
            f"{path_in_shell('resume', run_dir)}, or name another run_dir."
        )


def check_places(run_dir: Path) -> None:
    """Refuse a folder in which a run cannot write what it leaves.

    Raises:
        UserError: the name of the folder is a chain of URLs to Lightning, a folder lies where a
            file is written, or a file where a folder is made.
    """
    if "::" in str(run_dir):
        raise UserError(f"run_dir={run_dir}: '::' cannot be in its name. Rename it.")
    try:
        run_dir.exists()
    except OSError as error:
        raise UserError(f"run_dir={run_dir}: {error.strerror}. Name another run_dir.") from None
    for names, kind, is_other in (FILES, "file", Path.is_dir), (FOLDERS, "folder", Path.is_file):
        for name in names:
            if is_other(run_dir / name):
                raise UserError(f"{run_dir / name} must be a {kind}. Move away what lies there.")


@contextmanager
def lock_run_dir(run_dir: Path, settings: Settings) -> Iterator[None]:
    """Make the folder, write the settings into it, and hold its lock. Only rank zero does.

    Raises:
        UserError: another process trains this run, or the folder cannot be written to.
    """
    if not is_rank_zero():
        yield
        return
    lock = FileLock(run_dir / LOCK)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"run_dir={run_dir}: another process trains this run. Wait for it, or name another."
        ) from None
    except OSError as error:
        raise UserError(
            f"run_dir={run_dir} cannot be written to ({error.strerror}). Name another run_dir."
        ) from None
    try:
        remove_partial_files(run_dir)  # of a process that was killed
        if not settings.resume:
            check_unused(run_dir)  # again: of two runs that started together, one had to wait
            with atomic_write(run_dir / CONFIG) as path:
                path.write_text(OmegaConf.to_yaml(settings.model_dump(mode="json")))
        yield
    finally:
        lock.release()


def load_settings_to_resume(cfg: DictConfig) -> Settings:
    """The settings that the stopped run `cfg.resume` began with, but for where and how it runs.

    Raises:
        UserError: no run is there, its settings name what they may not, or another setting is given
            on the command line.
    """
    run_dir = folder_to_resume(cfg)
    saved = read_config(run_dir)
    names = [override.lstrip("+~").partition("=")[0] for override in task_overrides()]
    groups = {name.partition(".")[0] for name in names}
    for override, name in zip(task_overrides(), names, strict=True):
        if name.partition(".")[0] not in MAY_CHANGE_ON_RESUME:
            raise UserError(
                f"{override} cannot be given with resume={run_dir}: a run is resumed with the "
                f"settings it began with. May change: {', '.join(MAY_CHANGE_ON_RESUME[:-2])}."
            )
    kept = {key: value for key, value in saved.items() if key not in groups}
    check_targets(kept, run_dir / CONFIG, packages_to_trust(cfg))
    given: Any = OmegaConf.to_container(cfg, resolve=True)
    for group in groups:
        if group == "data_dir":
            _move_data_dir(saved, given["data_dir"])
        elif group == "trainer":
            saved["trainer"] = _move_trainer(saved.get("trainer"), given["trainer"], names)
        elif group not in given:
            raise UserError(f"~{group}: this setting cannot be removed. Omit it.")
        else:
            saved[group] = given[group]
    return validate_settings(OmegaConf.create(saved | {"resume": str(run_dir)}))


def match_settings_to_resume(settings: Settings, run_dir: Path) -> Settings:
    """These settings, to continue the run in `run_dir`, as a job of a sweep does.

    Raises:
        UserError: that run has other settings.
    """
    saved = read_config(run_dir)
    _move_data_dir(saved, str(settings.data_dir))
    saved_values = validate_settings(OmegaConf.create(saved)).model_dump()
    for name, value in settings.model_dump().items():
        if name not in MAY_CHANGE_ON_RESUME and saved_values[name] != value:
            raise UserError(
                f"{run_dir} holds a run with {name}={saved_values[name]}, this one has "
                f"{name}={value}. Name another run_dir."
            )
    return settings.model_copy(update={"resume": run_dir})


def read_config(run_dir: Path) -> dict[str, Any]:
    """The saved settings of a run, plain values; those of version 0.2 are upgraded.

    Nothing that they name is imported or computed.

    Raises:
        UserError: no run is there, or its settings cannot be read.
    """
    path = run_dir / CONFIG
    if not os.path.isfile(path):  # also where its name is too long
        raise UserError(f"resume={run_dir}: no run is there (no {CONFIG}). Name a run's folder.")
    try:
        saved: Any = OmegaConf.to_container(OmegaConf.load(path))
        if is_old_config(saved):
            saved = upgrade_config(saved)
        if not isinstance(saved, dict) or "training" not in saved:
            raise ValueError("training is not in it")
        saved = add_later_settings(saved)
    except Exception as error:  # of YAML, of OmegaConf, or of a structure that is no run's
        raise UserError(
            f"{path} is not the settings of a run ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}). Start a new run."
        ) from None
    check_interpolations(saved, path)
    return saved | {"allow": []}  # who resumes the run says whom to trust


def _move_data_dir(saved: dict[str, Any], data_dir: str) -> None:
    """Change `data_dir`, also in the settings that name paths below it."""
    before, saved["data_dir"] = str(saved.get("data_dir")), data_dir

    def move(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: move(entry) for key, entry in node.items()}
        if isinstance(node, list):
            return [move(entry) for entry in node]
        is_inside = isinstance(node, str) and f"{node}/".startswith(f"{before}/")
        return data_dir + node.removeprefix(before) if is_inside else node

    for name in ("dataset", "protocol"):
        saved[name] = move(saved.get(name))


def _move_trainer(saved: Any, given: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The trainer to resume with: where it runs as given, how it computes as the run began.

    Args:
        saved: the trainer's settings of the run.
        given: those of the command line and `conf/`.
        names: of the overrides; what they name is taken as given.
    """
    from deephash.training.trainer import PLACEMENT  # Lightning takes seconds to import

    def is_given(key: str) -> bool:
        return key in (*PLACEMENT, "_target_") or f"trainer.{key}" in names

    before = saved if isinstance(saved, dict) else {}
    kept = {key: value for key, value in before.items() if not is_given(key)}
    return kept | {key: value for key, value in given.items() if is_given(key)}
