"""Settings of a run: their types and ranges. No default stands here, all are in `conf/`."""

import re
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from deephash.core.errors import UserError, did_you_mean
from deephash.core.instantiate import Node, describe_problem, format_value
from deephash.experiment.hints import find_meaning
from deephash.experiment.renames import find_rename, renamed_setting
from deephash.training.settings import (
    AugmentSettings,
    ClassifyPhase,
    HashPhase,
    NonNegativeInt,
    PositiveInt,
    Strict,
)

MAX_BITS = 6400  # 100 words: numba compiles the kernels for no more
MAX_SEED = 2**63 - 1  # an integer of 64 bits
MAX_BATCH_SIZE = 2**31 - 1  # torch takes no more than 2**63 - 1
TRAINER_SETTINGS_OF_THE_RUN = {  # what to use in their place
    **dict.fromkeys(("max_epochs", "min_epochs", "max_time"), "training.<phase>.epochs."),
    **dict.fromkeys(("max_steps", "min_steps", "fast_dev_run"), "debug=fewsteps."),
    "overfit_batches": "debug=overfit.",
    "logger": "logger=csv.",
    "default_root_dir": "run_dir.",
    **dict.fromkeys(
        (
            "barebones",
            "callbacks",
            "enable_checkpointing",
            "enable_model_summary",
            "enable_progress_bar",
            "limit_predict_batches",
            "num_sanity_val_steps",
            "plugins",
            "use_distributed_sampler",
        ),
        "",
    ),
}
POSITIVE_TRAINER_SETTINGS = (
    "devices",
    "limit_train_batches",
    "val_check_interval",
    "accumulate_grad_batches",
    "check_val_every_n_epoch",
)
GLOBAL_GROUPS = ("recipe", "dataset_method", "experiment", "debug")
GROUP_OF = dict.fromkeys(("training", "augment", "evaluation"), "recipe")  # whose file sets it


def _refuse_empty(value: Any) -> Any:
    if value == "":
        raise PydanticCustomError("path_type", "Input should be a path")
    return value


Folder = Annotated[Path, BeforeValidator(_refuse_empty)]
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
    batch_size: Annotated[PositiveInt, Field(le=MAX_BATCH_SIZE)]


class Phases(Strict):
    """The phases of the run, by name, in order."""

    order: Annotated[list[str], Field(min_length=1)]


class Range(Strict):
    """Numbers from `low` to `high`; `log`: uniform in the logarithm.

    Integers if both are, unless the setting is a fraction.
    """

    setting: str
    low: int | float
    high: int | float
    log: bool = False


class Choices(Strict):
    """One of several values."""

    setting: str
    choices: Annotated[list[bool | int | float | str | None], Field(min_length=1)]


def _kind_of_space(node: Any) -> str:
    has_choices = "choices" in node if isinstance(node, dict) else isinstance(node, Choices)
    return "Choices" if has_choices else "Range"


Space = Annotated[
    Annotated[Range, Tag("Range")] | Annotated[Choices, Tag("Choices")],
    Discriminator(_kind_of_space),
]


class Tuning(Strict):
    """What a search for settings tries, and how often."""

    trials: PositiveInt
    space: Annotated[list[Space], Field(min_length=1)]


# One may stand without brackets. W&B takes up to 64 characters.
Tags = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=64)]],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
]


# Packages, by their top-level names.
Packages = Annotated[
    list[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
]


class Settings(Strict):
    """One run, validated."""

    bits: Annotated[PositiveInt, Field(le=MAX_BITS)]
    seed: Annotated[NonNegativeInt, Field(le=MAX_SEED)]
    tags: Tags
    data_dir: Folder
    run_dir: Folder
    cache_dir: Folder
    resume: Folder | None
    allow: Packages
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
        values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise UserError(_first_problem(error)) from None
    except OmegaConfBaseException as error:
        reason, key = str(error).splitlines()[0], re.search(r"full_key: (\S+)", str(error))
        raise UserError(f"{key[1]}: {reason}." if key else reason) from None
    for place, node in ("dataset", settings.dataset), ("protocol", settings.protocol.node()):
        if sentence := find_rename(place, node):
            raise UserError(sentence)
    _check_phases(settings)
    _check_trainer(settings.trainer)
    if settings.evaluation.radius > settings.bits:
        raise UserError(
            f"evaluation.radius={settings.evaluation.radius} is more than bits={settings.bits}. "
            "Lower it."
        )
    return settings


def folder_to_resume(cfg: DictConfig) -> Path:
    """The folder that `cfg.resume` names.

    Raises:
        UserError: it is not a path.
    """
    if not isinstance(cfg.resume, str | Path):
        raise UserError(f"resume={cfg.resume}: must be a run's folder.")
    return Path(cfg.resume)


def _check_trainer(trainer: Node) -> None:
    strategy = str(trainer.get("strategy"))
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise UserError(f"trainer.strategy={strategy}: processes run the same command. Use ddp.")
    for name in trainer:
        if name in TRAINER_SETTINGS_OF_THE_RUN:
            instead = TRAINER_SETTINGS_OF_THE_RUN[name]
            hint = f"Use {instead}" if instead else "Omit it."
            raise UserError(f"trainer.{name}: the run sets this itself. {hint}")
    for name in POSITIVE_TRAINER_SETTINGS:
        if trainer.get(name) in (0, "0"):
            raise UserError(f"trainer.{name}={trainer[name]}: must be greater than 0.")


def _check_phases(settings: Settings) -> None:
    order = settings.phases.order
    for name in order:
        if name not in settings.training:
            hint = did_you_mean(name, settings.training) if settings.training else "It is empty."
            raise UserError(f"phases.order: there is no phase '{name}' in training. {hint}")
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
    parts, kind, value = list(problem["loc"]), problem["type"], problem["input"]
    if parts[0] == "training" and len(parts) > 2:
        del parts[2]  # pydantic's name of the kind of phase
    place = str(parts[0])
    for part in parts[1:]:
        if part not in ("Range", "Choices", "bool", "int", "float"):  # of alternatives, in pydantic
            place += f"[{part}]" if isinstance(part, int) else f".{part}"
    if kind == "union_tag_not_found":
        kind, place = "missing", f"{place}.objective"
    if kind == "missing":
        group, is_in_a_group, _ = place.partition(".")
        file = f"Write it in the file of the chosen {GROUP_OF.get(group, group)}, or give it as"
        return f"{place} has no value. {file if is_in_a_group else 'Give it as'} +{place}=..."
    if kind == "extra_forbidden":
        if place in GLOBAL_GROUPS:
            return f"{place}: the chosen file must begin with '# @package _global_'."
        new_name = renamed_setting(place, ())
        if new_name:
            return f"{place} is now {new_name}."
        return f"{place}: there is no such setting. {find_meaning(place)}".rstrip()
    if kind == "union_tag_invalid":
        place, value = f"{place}.objective", value["objective"]
        return f"{place}={format_value(value)}: must be 'classify' or 'hash'."
    if kind == "too_short":
        return f"{place}=[]: must not be empty."
    if kind == "string_pattern_mismatch":
        return f"{place}={format_value(value)}: must be the name of a package."
    if "bool" in parts:  # or of another type
        return f"{place}={format_value(value)}: must be a single value."
    if "int" in parts:  # or a float
        problem = {**problem, "type": "float_type"}
    hint = ""
    if kind in ("path_type", "string_type") and isinstance(value, int | float):
        is_entry = place.endswith("]")
        name = place.rpartition("[")[0] if is_entry else place
        quoted = f"['{value}']" if is_entry else f"'{value}'"
        hint = "" if "[" in name else f' Quote it: "{name}={quoted}"'
    return f"{place}={format_value(value)}: {describe_problem(problem)}.{hint}"
