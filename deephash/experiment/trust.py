"""A run folder is data: which classes and functions its settings may name.

The settings of a run that is resumed may come from anywhere. A command line is the user's own.
"""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from deephash.core.conf import CONF
from deephash.core.errors import UserError
from deephash.core.instantiate import import_target

GROUPS = {  # of conf/, by the place of a node; * is any name
    "dataset": "dataset",
    "protocol": "protocol",
    "backbone": "backbone",
    "method": "method",
    "trainer": "trainer",
    "logger.*": "logger",
    "training.*.optimizer": "optimizer",
    "training.*.scheduler": "scheduler",
}
OPTIMIZERS = ("torch.optim", "timm.optim")  # modules whose optimizers may be named, too


def check_targets(saved: Mapping[str, Any], path: Path, allow: Collection[str]) -> None:
    """Refuse saved settings that name a class or function of another kind than their place takes.

    Each place may name what `conf/` names there, and an optimizer any of torch's or timm's. Other
    classes and functions must be those of a package in `allow`. Nothing is imported from elsewhere.

    Args:
        saved: settings, as they are in the file.
        path: of the file, for errors.
        allow: packages that the user trusts.

    Raises:
        UserError: the settings name something else.
    """
    for place, node in _nodes(saved):
        if "_target_" not in node:
            own_settings = [key for key in node if _is_of_hydra(key)]
        elif _is_in_conf(place, node["_target_"]):
            own_settings = [key for key in node if _is_of_hydra(key) and key != "_target_"]
        else:
            _check_allowed(f"{path}: {place}._target_={node['_target_']}", node["_target_"], allow)
            own_settings = []
        for key in own_settings:
            raise UserError(
                f"{path}: {place}.{key} is not taken from a run's folder. Remove it there."
            )


def check_interpolations(saved: Any, path: Path) -> None:
    """Refuse saved settings that are to be computed; a run saves values.

    Raises:
        UserError: a setting contains `${`.
    """
    for place, value in _entries(saved):
        if isinstance(value, str) and "${" in value:
            raise UserError(
                f"{path}: {place}={value} is not taken from a run's folder. Write its value there."
            )


def packages_to_trust(cfg: DictConfig) -> list[str]:
    """The packages of `allow`, as the command line has it.

    Raises:
        UserError: they are not names of packages.
    """
    allow = cfg.get("allow")
    is_list = isinstance(allow, Sequence) and not isinstance(allow, str)
    packages = list(allow) if is_list else [] if allow is None else [allow]
    if not all(isinstance(name, str) and name.isidentifier() for name in packages):
        raise UserError(f"allow={allow}: must be a list of packages, allow=[mylab].")
    return packages


def allow_argument(settings: Mapping[str, Any]) -> str:
    """What a command to resume a run with these settings needs; empty where it needs nothing."""
    targets = [(place, node["_target_"]) for place, node in _nodes(settings) if "_target_" in node]
    packages = {str(t).partition(".")[0] for place, t in targets if not _is_in_conf(place, t)}
    return f"allow=[{','.join(sorted(packages))}]" if packages else ""


def _check_allowed(place: str, target: Any, allow: Collection[str]) -> None:
    package = str(target).partition(".")[0]
    if not isinstance(target, str) or package not in allow:
        advice = (
            "Remove it there."
            if package == "deephash" or package in sys.stdlib_module_names
            else f"If you trust the folder and this package, add: allow=[{package}]"
        )
        raise UserError(f"{place} is no class or function that this place takes. {advice}")
    try:
        found = import_target(target)
    except ImportError as error:
        raise UserError(f"{place} cannot be imported: {error}") from None
    origin = str(getattr(found, "__module__", None))  # a module may hold others' functions
    if origin.partition(".")[0] not in allow:
        raise UserError(
            f"{place} is defined in {origin}, not in {package}. If you trust it, add "
            f"{origin.partition('.')[0]} to allow."
        )


def _is_in_conf(place: str, target: Any) -> bool:
    """Whether `conf/` names a target at this place, or it is an optimizer where one belongs."""
    group = next((group for pattern, group in GROUPS.items() if _matches(place, pattern)), None)
    if group is None or not isinstance(target, str):
        return False
    if target in _targets_in_conf(group):
        return True
    module, _, name = target.rpartition(".")
    return group == "optimizer" and module in OPTIMIZERS and _is_optimizer(module, name)


def _is_optimizer(module: str, name: str) -> bool:
    from importlib import import_module

    from torch.optim import Optimizer

    found = getattr(import_module(module), name, None)
    return isinstance(found, type) and issubclass(found, Optimizer)


def _matches(place: str, pattern: str) -> bool:
    names, patterns = place.split("."), pattern.split(".")
    pairs = zip(names, patterns, strict=False)
    return len(names) == len(patterns) and all(p in ("*", name) for name, p in pairs)


@cache
def _targets_in_conf(group: str) -> frozenset[str]:
    """The targets that the configurations of a group name."""
    configs = [OmegaConf.load(path) for path in (CONF / group).glob("*.yaml")]
    nodes = [node for each in configs for _, node in _nodes(OmegaConf.to_container(each))]
    return frozenset(node["_target_"] for node in nodes if "_target_" in node)


def _is_of_hydra(key: Any) -> bool:
    return isinstance(key, str) and key.startswith("_") and key.endswith("_")


def _nodes(values: Any) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """All dictionaries within plain values, with their places."""
    if isinstance(values, Mapping):
        yield "", values
    yield from ((place, node) for place, node in _entries(values) if isinstance(node, Mapping))


def _entries(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values within plain values, with their places; the keys of dictionaries, too."""
    pairs = (
        values.items()
        if isinstance(values, Mapping)
        else enumerate(values)
        if isinstance(values, list)
        else ()
    )
    for key, value in pairs:
        yield f"{prefix}{key}", value
        if isinstance(values, Mapping):
            yield f"{prefix}{key}", key
        yield from _entries(value, f"{prefix}{key}.")
