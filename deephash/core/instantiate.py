"""Building what a configuration node names by `_target_`, its settings checked first."""

import inspect
from typing import Any, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_class, get_method, instantiate
from pydantic import ConfigDict, ValidationError, create_model

from deephash.core.errors import UserError, did_you_mean

Node = dict[str, Any]  # names a class or function by `_target_`, beside its settings


def build(place: str, node: Node, *args: Any, partial: bool = False, **kwargs: Any) -> Any:
    """What `node` names by `_target_`, called with its own settings, `args` and `kwargs`.

    Args:
        place: where the node stands in the configuration, for errors.
        node: `_target_` and keyword settings.
        args: handed to the target before the settings.
        partial: return a callable that awaits more arguments.
        kwargs: handed to the target beside the settings.

    Raises:
        UserError: the target does not exist, or a setting is not of the type that it declares.
    """
    check_node(place, node)
    try:
        return instantiate(node, *args, _partial_=partial, _convert_="all", **kwargs)
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError):  # how a constructor refuses a setting
            raise UserError(f"{place}: {error.__cause__}") from None
        raise error.__cause__ or error from None


def check_node(place: str, node: Node) -> None:
    """Whether `node` can be built: its target exists, and its settings are of the right types.

    Raises:
        UserError: see `build`.
    """
    target = node.get("_target_")
    if not isinstance(target, str):
        raise UserError(f"{place}: no _target_ names a class or function in {node}.")
    try:
        found = get_class(target) if target.rpartition(".")[2][:1].isupper() else get_method(target)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{place}._target_={target} cannot be imported: {reason}") from None
    given = {key: value for key, value in node.items() if key != "_target_"}
    parameters = inspect.signature(found).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    try:
        hints = get_type_hints(found.__init__ if inspect.isclass(found) else found)
    except Exception:  # a library's annotations need not resolve
        hints = {}
    for name in given:
        if name not in parameters and not open_ended:
            raise UserError(
                f"{place}.{name}: {found.__name__} has no such setting. "
                + did_you_mean(name, parameters)
            )
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ...) for name in given if name in parameters
    }
    model = create_model("Arguments", __config__=ConfigDict(arbitrary_types_allowed=True), **fields)
    try:
        model.model_validate(given)
    except ValidationError as error:
        problem = error.errors()[0]
        wrong = str(problem["loc"][0])
        reason = lower_first(problem["msg"])
        raise UserError(f"{place}.{wrong}={given[wrong]}: {reason}.") from None


def without_import_paths(values: Any) -> Any:
    """Plain values with each `_target_` cut to the name of its class or function.

    A key made of these stays valid when a module moves.
    """
    if isinstance(values, dict):
        cut = {key: without_import_paths(value) for key, value in values.items()}
        if isinstance(cut.get("_target_"), str):
            cut["_target_"] = cut["_target_"].rpartition(".")[2]
        return cut
    return [without_import_paths(value) for value in values] if isinstance(values, list) else values


def lower_first(message: str) -> str:
    return message[:1].lower() + message[1:]
