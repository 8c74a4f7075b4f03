"""A search for settings: Optuna proposes them, a run each, judged by the validation images."""

import logging
import math
import shlex
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from deephash.core.errors import UserError, did_you_mean
from deephash.core.program import train_command
from deephash.core.ranks import launched_world_size
from deephash.core.seeds import derived_seed
from deephash.experiment.console import quiet_libraries
from deephash.experiment.inputs import check_inputs
from deephash.experiment.run_dir import MAY_CHANGE_ON_RESUME, STUDY
from deephash.experiment.settings import Choices, Range, Settings, Tuning, validate_settings
from deephash.experiment.study import open_study
from deephash.experiment.sweep import continue_command, given_overrides, run_sweep_job

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
        UserError: the space is wrong, Optuna is not installed, a run would take several
            processes, or as many trials failed.
    """
    settings = validate_settings(cfg)
    if settings.tuning is None:
        raise UserError("tuning: nothing says what to search for. Use tuning=optuna.")
    if settings.resume:
        raise UserError(
            f"resume={settings.resume} with tuning: a search continues by its own command with "
            "run_dir=..., without resume."
        )
    check_inputs(settings)
    _check_space(cfg, settings)
    _check_one_process(settings)
    run_dir, trials = settings.run_dir, settings.tuning.trials
    storage, study = open_study(run_dir / STUDY)
    import optuna  # takes a while, and is there now

    distributions = {
        space.setting: _distribution(space, OmegaConf.select(cfg, space.setting))
        for space in settings.tuning.space
    }
    _check_same_space(study.get_trials(), distributions, run_dir)
    _check_same_settings(study, settings, distributions)
    complete, failed = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL
    failures = 0
    while len(study.get_trials(states=[complete])) < trials:
        if failures >= trials:
            raise UserError(f"tuning: {trials} trials failed; {run_dir} says why.")
        seed = derived_seed(settings.seed, "search", len(study.get_trials()))
        # A trial that runs on another machine counts as a bad one, so that it is not tried twice.
        study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32, constant_liar=True)
        trial = study.ask(distributions)  # one that was stopped keeps its settings
        with _release_trial(storage, trial, run_dir):
            proposal = {name: trial.params[name] for name in distributions}
            logger.info("trial %d: %s", trial.number, " ".join(_as_overrides(proposal)))
            value = run_sweep_job(_trial_config(cfg, proposal), run_dir / f"trial-{trial.number}")
        failures += math.isnan(value)
        if math.isnan(value):
            study.tell(trial, state=failed)
        else:
            study.tell(trial, value)
    _print_trials(study.get_trials(states=[complete]), settings.tuning)
    return study.best_value


def _trial_config(cfg: DictConfig, proposal: dict[str, Any]) -> Any:
    trial_cfg: Any = OmegaConf.merge(cfg, {"tuning": None})
    for name, value in proposal.items():
        OmegaConf.update(trial_cfg, name, value)
    return trial_cfg


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
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    best = {name: best_first[0].params[name] for name in names}
    arguments = given_overrides(HydraConfig.get()) if HydraConfig.initialized() else []
    names_of = [argument.lstrip("+~").partition("=")[0] for argument in arguments]
    kept = [
        argument
        for argument, name in zip(arguments, names_of, strict=True)
        if name not in best and name.partition(".")[0] not in ("tuning", "run_dir")
    ]
    console.print(f"best: {train_command(shlex.join([*kept, *_as_overrides(best)]))}")


def _check_space(cfg: DictConfig, settings: Settings) -> None:
    """Refuse a space that has no such setting, no values, or values that no run takes."""
    assert settings.tuning is not None
    examples: dict[str, list[Any]] = {}
    for space in settings.tuning.space:
        name = space.setting
        if name in examples:
            raise UserError(f"tuning.space names {name} twice. Keep one.")
        value = _current_value(cfg, name, settings.phases.order[-1])
        examples[name] = (
            space.choices if isinstance(space, Choices) else _examples_of_range(space, value)
        )
    for i in range(max(map(len, examples.values()))):
        proposal = {name: values[i % len(values)] for name, values in examples.items()}
        try:
            validate_settings(_trial_config(cfg, proposal))
        except UserError as error:
            raise UserError(f"tuning.space: {error}") from None


def _current_value(cfg: DictConfig, name: str, last_phase: str) -> Any:
    """The value of a setting, by dotted name."""
    parts = name.split(".")
    if parts[0] in ("optimizer", "scheduler"):
        raise UserError(
            f"tuning.space: {name} is a setting of each phase. Write training.{last_phase}.{name}, "
            "or name another phase."
        )
    if parts[0] in {"tuning", *MAY_CHANGE_ON_RESUME} - {"trainer"}:
        raise UserError(f"tuning.space: {name} does not change what is trained. Leave it out.")
    node: Any = OmegaConf.to_container(cfg, resolve=True)
    for part in parts:
        entries = (
            {str(i): entry for i, entry in enumerate(node)} if isinstance(node, list) else node
        )
        if not isinstance(entries, dict) or part not in entries:
            hint = did_you_mean(part, entries) if isinstance(entries, dict) else ""
            raise UserError(f"tuning.space: there is no setting '{name}'. {hint}".strip())
        node = entries[part]
    if isinstance(node, dict):
        raise UserError(
            f"tuning.space: {name} is a group of settings, not one value. Name one of them: "
            f"{', '.join(f'{name}.{key}' for key in node)}."
        )
    return node


def _examples_of_range(space: Range, value: Any) -> list[float]:
    place = f"tuning.space: {space.setting}: low={space.low}"
    if space.low > space.high:
        raise UserError(f"{place} is more than high={space.high}. Exchange them.")
    if space.log and space.low <= 0:
        raise UserError(f"{place} has no logarithm. Raise it above 0, or omit log.")
    if _is_of_integers(space, value):
        return [space.low, space.high]
    return [space.low, space.low + (space.high - space.low) / math.pi, space.high]  # a fraction


def _is_of_integers(space: Range, value: Any) -> bool:
    """Whether a range is of integers, as its bounds are and the setting's value may be."""
    return isinstance(space.low, int) and isinstance(space.high, int) and type(value) is not float


def _distribution(space: Range | Choices, value: Any) -> Any:
    """What Optuna draws from."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(space, Choices):
        return CategoricalDistribution(space.choices)
    if _is_of_integers(space, value):
        return IntDistribution(int(space.low), int(space.high), log=space.log)
    return FloatDistribution(space.low, space.high, log=space.log)


def _check_same_space(trials: list[Any], distributions: dict[str, Any], run_dir: Path) -> None:
    """Refuse to continue a study that searched other settings, or others of their values."""
    for trial in trials:
        if trial.params and set(trial.params) != set(distributions):
            raise UserError(
                f"run_dir={run_dir} holds a search over {', '.join(sorted(trial.params))}, and "
                f"tuning.space names {', '.join(sorted(distributions))}. Name another run_dir."
            )
        for name, before in trial.distributions.items():
            if before != distributions[name]:
                raise UserError(
                    f"run_dir={run_dir} holds a search with another range, or other choices, of "
                    f"{name}: {before}. Name another run_dir."
                )


def _check_same_settings(study: Any, settings: Settings, names: Collection[str]) -> None:
    """Refuse to continue a study whose runs have other settings than those that are searched."""
    data_dir = str(settings.data_dir)
    values = {
        name: value.replace(data_dir, "${data_dir}", 1)
        if isinstance(value, str) and f"{value}/".startswith(f"{data_dir}/")
        else value
        for name, value in _flatten(
            settings.model_dump(mode="json", exclude={"tuning", *MAY_CHANGE_ON_RESUME})
        )
        if name not in names
    }
    before = study.user_attrs.get("settings")
    if before is None:
        study.set_user_attr("settings", values)
        return
    for name in [*before, *values]:
        if before.get(name) != values.get(name):
            raise UserError(
                f"run_dir={settings.run_dir} holds a search with {name}={before.get(name)}, this "
                f"one has {name}={values.get(name)}. Name another run_dir."
            )


def _flatten(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted name; a list is one value."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


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
def _release_trial(storage: Any, trial: Any, run_dir: Path) -> Iterator[None]:
    """On Ctrl-C or a signal, leave the trial to the next process that asks for one.

    It keeps its number, its settings and so its folder, in which its run is continued. Of several
    processes that ask, the storage gives it to one. On an error, the trial has failed.
    """
    from optuna.trial import TrialState

    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # a run turns the first into the second
        storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)
        if HydraConfig.initialized():
            command = continue_command(HydraConfig.get(), run_dir)
            print(f"Continue the search with: {command}", file=sys.stderr)
        raise
    except Exception:
        storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
        raise


def _as_overrides(values: dict[str, Any]) -> list[str]:
    """Overrides that Hydra reads as these values."""
    return [f"{name}={_as_text(value)}" for name, value in values.items()]


def _as_text(value: Any) -> str:
    text = "null" if value is None else str(value)
    try:
        is_plain = OverridesParser.create().parse_override(f"x={text}").value() == value
    except HydraException:
        is_plain = False
    return text if is_plain else QuotedString(text, Quote.single).with_quotes()
