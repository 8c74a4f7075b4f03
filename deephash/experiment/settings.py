"""Settings: their types and ranges, and the building of what they name.

No default stands here: every value comes from `conf/` or the command line.
"""

from pathlib import Path
from typing import Annotated, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)

from deephash.core.errors import UserError, did_you_mean
from deephash.core.instantiate import Node, lower_first


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Phase(_Strict):
    trains: Literal["all", "head"]
    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    warmup: Annotated[float, Field(ge=0, le=1)]  # share of the steps
    optimizer: Node


class ClassifyPhase(_Phase):
    """A phase that trains the backbone under a softmax classifier."""

    objective: Literal["classify"]
    trains: Literal["all"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]


class HashPhase(_Phase):
    """A phase that trains the hash head, or backbone and head, on the method's loss."""

    objective: Literal["hash"]


Phase = Annotated[ClassifyPhase | HashPhase, Field(discriminator="objective")]


class Augment(_Strict):
    """Translation by up to `translate` pixels, mirroring, a square of `cutout` pixels cut out."""

    translate: NonNegativeInt
    flip: Literal[False, True, "alternating"]
    cutout: NonNegativeInt


class Validation(_Strict):
    """Share of the training images held out, and the size of the database they are ranked on."""

    share: Annotated[float, Field(gt=0, lt=1)]
    database: PositiveInt


class Evaluation(_Strict):
    """What is measured of the final codes."""

    ks: list[PositiveInt]
    radius: NonNegativeInt
    batch_size: PositiveInt


class Phases(_Strict):
    """The phases of the run, by name, in order."""

    order: Annotated[list[str], Field(min_length=1)]


class Range(_Strict):
    """Numbers from `low` to `high`, whole ones if both are; `log`: their logarithms evenly."""

    setting: str
    low: int | float
    high: int | float
    log: bool = False


class Choices(_Strict):
    """Any of some values."""

    setting: str
    choices: Annotated[list[bool | int | float | str], Field(min_length=1)]


class Search(_Strict):
    """What a search tries, and how often."""

    trials: PositiveInt
    space: Annotated[list[Range | Choices], Field(min_length=1)]


class Settings(_Strict):
    """One run, checked."""

    bits: PositiveInt
    seed: NonNegativeInt
    data_dir: Path
    run_dir: Path
    cache_dir: Path
    resume: Path | None
    dataset: Node
    protocol: Node
    validation: Validation
    augment: Augment
    backbone: Node
    method: Node
    phases: Phases
    phase: dict[str, Phase]
    evaluation: Evaluation
    trainer: Node
    logger: Node
    search: Search | None = None

    def ordered_phases(self) -> dict[str, ClassifyPhase | HashPhase]:
        """The phases of this run by name, in order."""
        return {name: self.phase[name] for name in self.phases.order}


def checked(cfg: DictConfig) -> Settings:
    """The settings of `cfg`, interpolations resolved.

    Raises:
        UserError: a setting is missing, unknown, of the wrong type or out of range.
    """
    try:
        values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise UserError(_first_problem(error)) from None
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from None
    order = settings.phases.order
    for name in order:
        if name not in settings.phase:
            hint = did_you_mean(name, settings.phase)
            raise UserError(f"phases.order: there is no phase '{name}'. {hint}")
        if order.count(name) > 1:
            raise UserError(
                f"phases.order names '{name}' twice. Define a phase of its own under another name."
            )
    objectives = [settings.phase[name].objective for name in order]
    if objectives != sorted(objectives):  # "classify" before "hash"
        raise UserError(
            f"phases.order={order}: a phase that classifies comes after one that hashes. "
            "Put it before."
        )
    if settings.evaluation.radius > settings.bits:
        raise UserError(
            f"evaluation.radius={settings.evaluation.radius} is more than bits={settings.bits}. "
            "Lower it."
        )
    return settings


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"] if part not in ("classify", "hash"))
    if problem["loc"][:1] == ("phase",):
        place = ".".join(["phase", str(problem["loc"][1]), *map(str, problem["loc"][3:])])
    if problem["type"] == "missing":
        return f"{place}: this setting has no value; give one as {place}=..."
    if problem["type"] == "extra_forbidden":
        return f"{place}: there is no such setting."
    return f"{place}={problem['input']}: {lower_first(problem['msg'])}."
