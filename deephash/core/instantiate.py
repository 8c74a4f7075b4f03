"""Build the object that a configuration node names by `_target_`, after checking its settings.

Hydra and pydantic are imported where they are used, so that importing this module is cheap.
"""

import inspect
from importlib import import_module
from types import ModuleType
from typing import Any, get_type_hints

from deephash.core.errors import UserError, did_you_mean

WANTED = {  # by what pydantic calls the problem
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "an integer"),
    "int_parsing_size": "a smaller integer",
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "finite_number": "a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "a text",
    "path_type": "a path",
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type"), "settings, {NAME: VALUE}"
    ),
}
Node = dict[str, Any]  # `_target_`, the import path of a class or function, and keyword settings


def build(place: str, node: Node, *args: Any, partial: bool = False, **kwargs: Any) -> Any:
    """Call the class or function that `node` names, with the settings of the node.

    Args:
        place: where the node stands in the configuration, for error messages.
        node: `_target_` and keyword settings.
        args: positional arguments of the target.
        partial: return a callable that takes the remaining arguments, instead of calling.
        kwargs: keyword arguments of the target, in addition to the settings.

    Returns:
        what the target returns.

    Raises:
        UserError: the target cannot be imported, or a setting is missing, unknown, of the wrong
            type, or refused by the target with a ValueError.

    Example:
        >>> build("fraction", {"_target_": "fractions.Fraction", "denominator": 3}, 2)
        Fraction(2, 3)
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    check_node(place, node)
    if not partial:
        _check_arguments(place, node, args, kwargs)
    try:
        return instantiate(node, *args, _partial_=partial, _convert_="all", **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError) and not isinstance(cause, UserError):
            names_setting = str(cause).partition("=")[0] in node
            raise UserError(f"{place}{'.' if names_setting else ': '}{cause}") from None
        raise cause or error from None


def build_instance(place: str, node: Node, kind: type[Any], *args: Any) -> Any:
    """Build what is to be an instance of a class.

    Args:
        place: where the node stands in the configuration, for error messages.
        node: `_target_` and keyword settings.
        kind: the class.
        args: positional arguments of the target.

    Raises:
        UserError: it is none, or cannot be built; see `build`.
    """
    built = build(place, node, *args)
    if not isinstance(built, kind):
        raise UserError(
            f"{place}._target_={node['_target_']} makes a {type(built).__name__}; it must make a "
            f"{kind.__module__}.{kind.__name__}."
        )
    return built


def check_node(place: str, node: Node) -> None:
    """Check that `node` can be built: its target exists, and its settings have the right types.

    Args:
        place: where the node stands in the configuration, for error messages.
        node: `_target_` and keyword settings.

    Raises:
        UserError: the target cannot be imported, or a setting is unknown or of the wrong type.
    """
    from pydantic import ConfigDict, ValidationError, create_model

    path = node.get("_target_")
    if not isinstance(path, str):
        raise UserError(f"{place}: no _target_ names a class or function in {node}.")
    try:
        target = import_target(path)
    except ImportError as error:
        raise UserError(f"{place}._target_={path} cannot be imported: {error}") from None
    settings = {key: value for key, value in node.items() if key != "_target_"}
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:
        raise UserError(
            f"{place}._target_={path} is built into Python and does not tell its settings. Name a "
            "class or function of your own."
        ) from None
    takes_any_keyword = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in settings:
        if name not in parameters and not takes_any_keyword:
            raise UserError(
                f"{place}.{name}: {target.__name__} has no such setting. "
                + did_you_mean(name, parameters)
            )
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # annotations of third-party code cannot always be resolved
        hints = {}
    for is_bool in (False, True):  # strict: true is not the number 1
        fields: dict[str, Any] = {
            name: (hints.get(name, Any), ...)
            for name, value in settings.items()
            if name in parameters and isinstance(value, bool) == is_bool
        }
        config = ConfigDict(
            arbitrary_types_allowed=True, allow_inf_nan=False, strict=is_bool, extra="ignore"
        )
        model = create_model("Settings", __config__=config, **fields)
        try:
            model.model_validate(settings)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            problems = [problem for problem in error.errors() if problem["loc"][0] == name]
            plain = [problem for problem in problems if problem["type"] != "is_instance_of"]
            reasons = " or ".join(dict.fromkeys(map(describe_problem, plain or problems)))
            reasons = reasons.replace(" or must be ", " or ")
            value = format_value(settings[name])
            raise UserError(f"{place}.{name}={value}: {reasons}.") from None


def _check_arguments(place: str, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check that the target of a node can be called with its settings and these arguments.

    Raises:
        UserError: a setting is missing, or is also an argument.
    """
    target = import_target(node["_target_"])
    settings = {key: value for key, value in node.items() if key != "_target_"}
    try:
        inspect.signature(target).bind(*args, **{**settings, **kwargs})
    except TypeError as error:
        raise UserError(
            f"{place}: {target.__name__}, called with {len(args)} arguments and the settings "
            f"[{', '.join(settings)}]: {error}."
        ) from None


def without_import_paths(values: Any) -> Any:
    """Copy nested plain values, with each `_target_` cut to its top-level package and its name.

    Keys of results and caches are computed from this copy, so that they stay valid when a module
    moves.

    Example:
        >>> without_import_paths({"_target_": "deephash.backbones.LeNet", "widths": [1, 2]})
        {'_target_': 'deephash.LeNet', 'widths': [1, 2]}
    """
    if isinstance(values, dict):
        copy = {key: without_import_paths(value) for key, value in values.items()}
        if isinstance(copy.get("_target_"), str):
            package, _, path = copy["_target_"].partition(".")
            copy["_target_"] = f"{package}.{path.rpartition('.')[2]}"
        return copy
    return [without_import_paths(value) for value in values] if isinstance(values, list) else values


def describe_problem(problem: Any) -> str:
    """What a setting must be, from an entry of the errors of pydantic.

    Example:
        >>> describe_problem({"type": "int_parsing", "msg": "Input should be a valid integer, ..."})
        'must be an integer'
    """
    if problem["type"] == "is_instance_of" and problem["ctx"]["class"] == "Sequence":
        return "must be a list"
    wanted = WANTED.get(problem["type"])
    if wanted:
        return f"must be {wanted}"
    message = problem["msg"].removeprefix("Input should ")
    for long, short in (
        ("less than or equal to", "at most"),
        ("greater than or equal to", "at least"),
    ):
        message = message.replace(long, short)
    if problem["msg"].startswith("Input should "):
        return f"must {message}"
    return message[:1].lower() + message[1:]


def format_value(value: Any) -> str:
    """A value as the command line takes it.

    Example:
        >>> format_value([None, True, "a"])
        '[null,true,a]'
    """
    if isinstance(value, dict):
        pairs = (f"{key}:{format_value(entry)}" for key, entry in value.items())
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


def import_target(path: str) -> Any:
    """Import the class or function at a dotted path such as `package.module.Name`.

    Raises:
        ImportError: there is no such class or function; the message is one sentence that says
            which part of the path is wrong.
    """
    names = path.split(".")
    if len(names) < 2 or not all(name.isidentifier() for name in names):
        raise ImportError("give the full import path of a class or function, package.module.Name.")
    found: Any = _import_module(names[0])
    for depth, name in enumerate(names[1:], start=1):
        try:
            found = getattr(found, name)
        except AttributeError:
            parent = ".".join(names[:depth])
            is_package = isinstance(found, ModuleType) and hasattr(found, "__path__")
            submodule = _import_module(f"{parent}.{name}") if is_package else None
            if submodule is None:
                public = [key for key in dir(found) if not key.startswith("_")]
                kind = "module" if isinstance(found, ModuleType) else "class"
                hint = did_you_mean(name, public)
                hint = f" {hint}" if hint.startswith("Did") else ""
                raise ImportError(f"{kind} '{parent}' has no '{name}'.{hint}") from None
            found = submodule
    if not callable(found):
        raise ImportError(f"it is a {type(found).__name__}, not a class or function.")
    return found


def _import_module(name: str) -> ModuleType | None:
    """Import a module; None if its package exists and has no such module.

    Raises:
        ImportError: no such package is installed, or the module cannot be imported.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name and "." in name:
            return None
        if error.name == name:
            raise ImportError(
                f"no package '{name}' is installed. Install it, or add its folder to PYTHONPATH."
            ) from None
        if error.name is not None:
            raise ImportError(f"'{name}' imports '{error.name}', which is not installed.") from None
        raise ImportError(f"importing '{name}' fails: {error}") from None
    except SystemExit as error:
        raise ImportError(f"importing '{name}' fails: it calls sys.exit({error.code!r})") from None
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ImportError(f"importing '{name}' fails: {type(error).__name__}: {reason}") from None
