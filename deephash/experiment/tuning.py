"""A search for settings: Optuna proposes, a run each, judged by the validation images."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from deephash.core import ranks
from deephash.core.errors import UserError
from deephash.core.seeds import derived_seed
from deephash.experiment.console import quiet_libraries
from deephash.experiment.run_dir import STUDY
from deephash.experiment.settings import Choices, Range, Settings, checked
from deephash.experiment.sweep import run_sweep_job
from deephash.training.trainer import settled


def search(cfg: DictConfig) -> float:
    """Try settings until the study in `run_dir` has as many finished trials as asked for.

    The study is a file there: the same command on other machines that see it takes part, and begun
    again it goes on, also with the trials that were stopped. The test queries decide nothing.

    Args:
        cfg: of `conf/`, composed; its `search` says what is searched.

    Returns:
        what the best run has of the validation images, see `run`.

    Raises:
        UserError: a setting is none, Optuna is not installed, a run is to take several processes,
            or as many trials failed.
    """
    try:
        import optuna  # only a search needs it
        from optuna.storages.journal import JournalFileBackend, JournalStorage
    except ImportError:
        raise UserError("search needs a package: pip install 'deephash[search]'") from None
    settings = checked(cfg)
    wanted, folder = settings.search, settings.run_dir
    if wanted is None:
        raise UserError("search: nothing says what is searched. Use search=optuna.")
    names = [of.setting for of in wanted.space]
    for name in names:
        if OmegaConf.select(cfg, name) is None:
            raise UserError(f"search.space: there is no setting '{name}' to search.")
    _check_one_process(settings)
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder / STUDY)))
    study = optuna.create_study(
        storage=storage,
        study_name="search",
        direction="maximize",
        load_if_exists=True,
    )
    finished, failed = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL
    while len(study.get_trials(states=[finished])) < wanted.trials:
        if len(study.get_trials(states=[failed])) >= wanted.trials:
            raise UserError(f"search: {wanted.trials} trials failed; {folder} says why.")
        seed = derived_seed(settings.seed, "search", len(study.get_trials()))
        # A trial that another machine is at counts as a bad one, so that it is not tried twice.
        study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32, constant_liar=True)
        trial = study.ask()
        with _waiting_if_stopped(storage, trial):
            told = {of.setting: _proposed(trial, of) for of in wanted.space}
            print(f"trial {trial.number}: {_shown(told)}")
            proposed = OmegaConf.merge(cfg, {"search": None})
            for name, value in told.items():
                OmegaConf.update(proposed, name, value)
            found = run_sweep_job(proposed, folder / f"trial-{trial.number}")  # type: ignore[arg-type]
        if math.isnan(found):
            study.tell(trial, state=failed)
        else:
            study.tell(trial, found)
    best_first = sorted(study.get_trials(states=[finished]), key=lambda one: -one.values[0])
    table = Table("trial", *names, "validation")
    for one in best_first:
        values = (one.params[name] for name in names)
        shown = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
        table.add_row(str(one.number), *shown, f"{one.values[0]:.4f}")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"best: python train.py {_shown(best_first[0].params)}")
    return study.best_value


def _check_one_process(settings: Settings) -> None:
    """Each process of a run would search by itself, and train what it alone proposes."""
    started = ranks.launched_world_size()
    if started > 1:
        raise UserError(
            f"search: {started} processes were started together, and each would search by itself. "
            "Start one; the same command begun once more, by itself, takes part."
        )
    with quiet_libraries():
        _, wanted = settled(settings.trainer)
    if wanted > 1:
        raise UserError(
            f"search with trainer.devices={settings.trainer.get('devices')}: each of the {wanted} "
            "processes would search by itself. Use one device a run, as by trainer=auto; the same "
            "command on another device takes part."
        )


@contextmanager
def _waiting_if_stopped(storage: Any, trial: Any) -> Iterator[None]:
    """Upon Ctrl-C or a signal, leave the trial to the next process that asks for one.

    It keeps its number, what was proposed, and so its folder, in which its run goes on. Of those
    that ask, the storage gives it to one.
    """
    from optuna.trial import TrialState

    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # a run turns the first into the second
        storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)
        raise


def _proposed(trial: Any, of: Range | Choices) -> Any:
    if isinstance(of, Choices):
        return trial.suggest_categorical(of.setting, of.choices)
    if isinstance(of.low, int) and isinstance(of.high, int):
        return trial.suggest_int(of.setting, of.low, of.high, log=of.log)
    return trial.suggest_float(of.setting, of.low, of.high, log=of.log)


def _shown(told: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in told.items())
