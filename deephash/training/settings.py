"""Settings of the phases of a training: their types and ranges. No default stands here."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from deephash.core.instantiate import Node


def _refuse_boolean(value: Any) -> Any:
    if isinstance(value, bool):  # for Python they are numbers
        raise PydanticCustomError("int_type", "Input should be an integer")
    return value


Integer = Annotated[int, BeforeValidator(_refuse_boolean)]
PositiveInt = Annotated[Integer, Field(gt=0)]
NonNegativeInt = Annotated[Integer, Field(ge=0)]


class Strict(BaseModel):
    """Settings that refuse unknown names, and do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Phase(Strict):
    trains: Literal["all", "head"]
    epochs: PositiveInt
    batch_size: Annotated[Integer, Field(ge=2)]
    optimizer: Node
    scheduler: Node
    param_groups: dict[str, dict[str, Any]] | None  # by prefix of the parameters' names


class ClassifyPhase(_Phase):
    """A phase that trains the backbone under a classifier."""

    objective: Literal["classify"]
    trains: Literal["all"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]


class HashPhase(_Phase):
    """A phase that trains the hash head, or backbone and head, on the method's loss."""

    objective: Literal["hash"]


PhaseSettings = ClassifyPhase | HashPhase


class AugmentSettings(Strict):
    """Translation by up to `translate` pixels, mirroring, a square of `cutout` pixels cut out."""

    translate: NonNegativeInt
    flip: Literal[False, True, "alternating"]
    cutout: NonNegativeInt
