"""A search for settings: Optuna proposes them, a run each, judged by the validation images."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from deephash.core.errors import UserError, did_you_mean
from deephash.core.program import train_command
from deephash.core.ranks import launched_world_size
from deephash.core.seeds import derived_seed
from deephash.experiment.console import quiet_libraries
from deephash.experiment.run_dir import STUDY
from deephash.experiment.settings import (
    Choices,
    Range,
    Settings,
    Tuning,
    replace_phase_parts,
    validate_settings,
)
from deephash.experiment.sweep import run_sweep_job

logger = logging.getLogger(__name__)


def tune(cfg: DictConfig) -> float:
    """Try settings until the study in `run_dir` has as many finished trials as `cfg.tuning` asks.

    The study is a file there: the same command on other machines that share the folder takes part,
    and started again it goes on, first with the trials that were stopped. The test queries decide
    nothing.

    Args:
        cfg: of `conf/`, composed.

    Returns:
        The best validation metric, see `run`.

    Raises:
        UserError: a setting does not exist, Optuna is not installed, a run would take several
            processes, or as many trials failed.
    """
    cfg = replace_phase_parts(cfg)  # so that what is proposed for a phase is not replaced
    settings = validate_settings(cfg)
    if settings.tuning is None:
        raise UserError("tuning: nothing says what to search for. Use tuning=optuna.")
    _check_settings_exist(cfg, settings.tuning)
    try:
        import optuna  # only a search needs it
        from optuna.storages.journal import JournalFileBackend, JournalStorage
    except ImportError:
        raise UserError("tuning=optuna needs a package: pip install 'deephash[tuning]'") from None
    _check_one_process(settings)
    run_dir, trials = settings.run_dir, settings.tuning.trials
    run_dir.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(run_dir / STUDY)))
    study = optuna.create_study(
        storage=storage, study_name="search", direction="maximize", load_if_exists=True
    )
    _check_same_space(study.get_trials(), settings.tuning, run_dir)
    complete, failed = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL
    while len(study.get_trials(states=[complete])) < trials:
        if len(study.get_trials(states=[failed])) >= trials:
            raise UserError(f"tuning: {trials} trials failed; {run_dir} says why.")
        seed = derived_seed(settings.seed, "search", len(study.get_trials()))
        # A trial that runs on another machine counts as a bad one, so that it is not tried twice.
        study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32, constant_liar=True)
        trial = study.ask()
        with _requeue_if_stopped(storage, trial):
            proposal = {space.setting: _propose(trial, space) for space in settings.tuning.space}
            logger.info("trial %d: %s", trial.number, _as_overrides(proposal))
            trial_cfg: Any = OmegaConf.merge(cfg, {"tuning": None})
            for name, value in proposal.items():
                OmegaConf.update(trial_cfg, name, value)
            value = run_sweep_job(trial_cfg, run_dir / f"trial-{trial.number}")
        if math.isnan(value):
            study.tell(trial, state=failed)
        else:
            study.tell(trial, value)
    _print_trials(study.get_trials(states=[complete]), settings.tuning)
    return study.best_value


def _check_same_space(trials: list[Any], tuning: Tuning, run_dir: Path) -> None:
    """Refuse to continue a study that searched other settings."""
    names = {space.setting for space in tuning.space}
    for trial in trials:
        if trial.params and set(trial.params) != names:
            raise UserError(
                f"run_dir={run_dir} holds a search over {', '.join(sorted(trial.params))}, and "
                f"tuning.space names {', '.join(sorted(names))}. Name another run_dir."
            )


def _print_trials(trials: list[Any], tuning: Tuning) -> None:
    from rich.console import Console
    from rich.table import Table

    best_first = sorted(trials, key=lambda trial: -trial.values[0])
    names = [space.setting for space in tuning.space]
    table = Table("trial", *names, "validation")
    for trial in best_first:
        values = [trial.params[name] for name in names]
        cells = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
        table.add_row(str(trial.number), *cells, f"{trial.values[0]:.4f}")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"best: {train_command(_as_overrides(best_first[0].params))}")


def _check_settings_exist(cfg: DictConfig, tuning: Tuning) -> None:
    for space in tuning.space:
        if OmegaConf.select(cfg, space.setting) is None:
            node, _, name = space.setting.rpartition(".")
            siblings = OmegaConf.select(cfg, node) if node else cfg
            hint = did_you_mean(name, map(str, siblings)) if siblings else ""
            raise UserError(f"tuning.space: there is no setting '{space.setting}'. {hint}".strip())


def _check_one_process(settings: Settings) -> None:
    """Refuse a run of several processes: each would search by itself."""
    launched = launched_world_size()
    if launched > 1:
        raise UserError(
            f"tuning: {launched} processes were launched together, and each would search by "
            "itself. Launch one; the same command started again, by itself, takes part."
        )
    from deephash.training.trainer import resolve_trainer_config

    with quiet_libraries():
        _, world_size = resolve_trainer_config(settings.trainer, is_multirun=False)
    if world_size > 1:
        raise UserError(
            f"tuning with trainer.devices={settings.trainer.get('devices')}: each of the "
            f"{world_size} processes would search by itself. Use one device per run, as "
            "trainer=auto does; the same command on another device takes part."
        )


@contextmanager
def _requeue_if_stopped(storage: Any, trial: Any) -> Iterator[None]:
    """On Ctrl-C or a signal, leave the trial to the next process that asks for one.

    It keeps its number, its settings and so its folder, in which its run is continued. Of several
    processes that ask, the storage gives it to one.
    """
    from optuna.trial import TrialState

    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # a run turns the first into the second
        storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)
        raise


def _propose(trial: Any, space: Range | Choices) -> Any:
    if isinstance(space, Choices):
        return trial.suggest_categorical(space.setting, space.choices)
    if isinstance(space.low, int) and isinstance(space.high, int):
        return trial.suggest_int(space.setting, space.low, space.high, log=space.log)
    return trial.suggest_float(space.setting, space.low, space.high, log=space.log)


def _as_overrides(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())
