"""Settings of a run: their types and ranges. No default stands here, all are in `conf/`."""

from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from deephash.core.errors import UserError, did_you_mean
from deephash.core.instantiate import Node, lower_first
from deephash.experiment.renames import renamed_setting
from deephash.training.settings import AugmentSettings, ClassifyPhase, HashPhase, Strict

Phase = Annotated[ClassifyPhase | HashPhase, Field(discriminator="objective")]


class Validation(Strict):
    """Training images held out for validation, and how many others they are ranked against."""

    fraction: Annotated[float, Field(gt=0, lt=1)]
    database_size: PositiveInt


class ProtocolSettings(Strict):
    """A function that draws a split, its own settings, and what is held out for validation."""

    model_config = ConfigDict(extra="allow", frozen=True)
    validation: Validation

    def node(self) -> Node:
        """The `_target_` of the protocol, and its own settings."""
        return dict(self.model_extra or {})


class Evaluation(Strict):
    """What is measured of the final codes."""

    ks: list[PositiveInt]
    radius: NonNegativeInt
    batch_size: PositiveInt


class Phases(Strict):
    """The phases of the run, by name, in order."""

    order: Annotated[list[str], Field(min_length=1)]


class Range(Strict):
    """Numbers from `low` to `high`, integers if both are; `log`: uniform in the logarithm."""

    setting: str
    low: int | float
    high: int | float
    log: bool = False


class Choices(Strict):
    """One of several values."""

    setting: str
    choices: Annotated[list[bool | int | float | str], Field(min_length=1)]


class Tuning(Strict):
    """What a search for settings tries, and how often."""

    trials: PositiveInt
    space: Annotated[list[Range | Choices], Field(min_length=1)]


class Settings(Strict):
    """One run, validated."""

    bits: PositiveInt
    seed: NonNegativeInt
    tags: list[str]
    data_dir: Path
    run_dir: Path
    cache_dir: Path
    resume: Path | None
    dataset: Node
    protocol: ProtocolSettings
    augment: AugmentSettings
    backbone: Node
    method: Node
    phases: Phases
    training: dict[str, Phase]
    evaluation: Evaluation
    trainer: Node
    logger: dict[str, Node]
    tuning: Tuning | None = None

    def ordered_phases(self) -> dict[str, ClassifyPhase | HashPhase]:
        """The phases of this run by name, in order."""
        return {name: self.training[name] for name in self.phases.order}


def validate_settings(cfg: DictConfig) -> Settings:
    """The settings of `cfg`, with interpolations resolved.

    Raises:
        UserError: a setting is missing, unknown, of the wrong type or out of range.
    """
    try:
        resolved = replace_phase_parts(cfg)
        values: Any = OmegaConf.to_container(resolved, resolve=True, throw_on_missing=True)
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise UserError(_first_problem(error)) from None
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from None
    _check_phases(settings)
    if settings.evaluation.radius > settings.bits:
        raise UserError(
            f"evaluation.radius={settings.evaluation.radius} is more than bits={settings.bits}. "
            "Lower it."
        )
    return settings


def replace_phase_parts(cfg: DictConfig) -> DictConfig:
    """`cfg` with the optimizer and scheduler of every phase replaced by those chosen for all."""
    cfg = cfg.copy()
    for group in ("optimizer", "scheduler"):
        node = cfg.get(group)
        with open_dict(cfg):
            cfg.pop(group, None)
        for phase in cfg.training.values() if node is not None else ():
            phase[group] = node
    return cfg


def _check_phases(settings: Settings) -> None:
    order = settings.phases.order
    for name in order:
        if name not in settings.training:
            hint = did_you_mean(name, settings.training)
            raise UserError(f"phases.order: there is no phase '{name}'. {hint}")
        if order.count(name) > 1:
            raise UserError(
                f"phases.order names '{name}' twice. Define another phase: +training.<name>=..."
            )
    objectives = [settings.training[name].objective for name in order]
    if objectives != sorted(objectives):  # "classify" before "hash"
        raise UserError(
            f"phases.order={order}: a phase that classifies comes after one that hashes. "
            "Put it before."
        )


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    parts = [str(part) for part in problem["loc"]]
    if parts[0] == "training" and len(parts) > 2:
        del parts[2]  # pydantic's name of the kind of phase
    place = ".".join(part for part in parts if part not in ("Range", "Choices"))
    if problem["type"] == "missing":
        return f"{place}: this setting has no value; give one as {place}=..."
    if problem["type"] == "extra_forbidden":
        new_name = renamed_setting(place, ())
        return f"{place} is now {new_name}." if new_name else f"{place}: there is no such setting."
    return f"{place}={problem['input']}: {lower_first(problem['msg'])}."
