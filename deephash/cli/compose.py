"""Configurations composed from `conf/` and the configurations of the user's own packages.

Nothing heavier than Hydra is imported here: help, completion and errors must answer at once.
"""

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from deephash.cli.arguments import check_overrides, parse_override, split_options
from deephash.cli.phase_parts import replace_phase_parts
from deephash.core.conf import CONF
from deephash.core.errors import UserError
from deephash.core.program import quote, train_command
from deephash.experiment.settings import GLOBAL_GROUPS

CONFIG_DIR_OPTIONS = ("--config-dir", "-cd")
SEARCHPATH = "hydra.searchpath"
SCHEMES = ("file", "pkg")


def compose_config(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """`conf/` with overrides; `hydra.searchpath=[...]` among them adds the user's configurations.

    Args:
        overrides: as on the command line.
        with_hydra: whether to include Hydra's own settings, under `hydra`.

    Raises:
        UserError: see `prepare_arguments`.
    """
    cfg = compose_nodes(overrides, with_hydra=with_hydra)
    return replace_phase_parts(cfg, overrides)


def compose_nodes(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """As `compose_config`, but with `optimizer` and `scheduler` as nodes of their own."""
    arguments = prepare_arguments(overrides)
    with initialize_config_dir(str(CONF), job_name="train", version_base="1.3"):
        return compose("config", overrides=arguments, return_hydra_config=with_hydra)


def prepare_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra takes them, options first, after refusing what it would misread.

    Raises:
        UserError: the user's configurations cannot be used, or see `split_options` and
            `check_overrides`.
    """
    options, overrides = split_options(arguments)
    prepared = [
        f"{name}={value}" if value else name
        for name, values in options.items()
        for value in values or [""]
        if name not in CONFIG_DIR_OPTIONS
    ]
    if "--shell-completion" in options:
        return [*prepared, *overrides]
    check_search_path(arguments)
    overrides = check_overrides(
        [override for override in overrides if not is_search_path(override)],
        config_groups(arguments),
        default_choices(),
        is_multirun="--multirun" in options or "hydra.mode=MULTIRUN" in overrides,
    )
    return [*prepared, *overrides, *search_path_override(arguments)]


@cache
def default_choices() -> dict[str, Any]:
    """The choices of the defaults list of `conf/config.yaml`, by their keys."""
    config: Any = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"), resolve=False)
    pairs = [pair for entry in config["defaults"] if entry != "_self_" for pair in entry.items()]
    return {key: choice for key, choice in pairs if " " not in key}  # not `optional`, `override`


def search_path_override(arguments: Sequence[str]) -> list[str]:
    """The override that adds the user's configurations named by a command line, if any."""
    entries = [quote(label) for label, _ in user_config_dirs(arguments)]
    return [f"{SEARCHPATH}=[{','.join(entries)}]"] if entries else []


def is_search_path(argument: str) -> bool:
    """Whether an argument of the command line sets Hydra's search path."""
    return argument.lstrip("+~").partition("=")[0] == SEARCHPATH


def user_config_dirs(arguments: Sequence[str]) -> list[tuple[str, Path]]:
    """The folders that a command line adds by `--config-dir` or `hydra.searchpath`.

    Args:
        arguments: of the command line.

    Returns:
        How Hydra names each folder, and its path.

    Raises:
        UserError: a package is not installed, or a folder does not exist.
    """
    search_paths = [argument for argument in arguments if is_search_path(argument)]
    if len(search_paths) > 1 or any(argument[0] in "+~" for argument in search_paths):
        raise UserError(
            f"{' '.join(search_paths)}: give one {SEARCHPATH}=[...], without '+' or '~'. Name all "
            "packages and folders in it."
        )
    dirs: list[tuple[str, Path]] = []
    for i, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        if option in CONFIG_DIR_OPTIONS:
            name = value or next(iter(arguments[i + 1 :]), "")
            dirs.append((f"file://{Path(name).absolute()}", Path(name)))
        elif option == SEARCHPATH:
            entries = parse_override(argument).value()
            if not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
                raise UserError(
                    f"{argument}: a list of folders and packages is needed: "
                    f"{SEARCHPATH}=[FOLDER,pkg://PACKAGE]"
                )
            dirs += [(str(entry), _search_path_folder(str(entry))) for entry in entries]
    for label, folder in dirs:
        if not os.path.isdir(folder):  # also where its name is too long
            raise UserError(f"{label}: there is no such folder of configurations.")
    return list({folder.resolve(): (label, folder) for label, folder in dirs}.values())


def _search_path_folder(entry: str) -> Path:
    scheme, separator, rest = entry.partition("://")
    if not separator:
        return Path(entry)
    if scheme not in SCHEMES:
        raise UserError(f"{SEARCHPATH}: {entry} is neither file://FOLDER nor pkg://PACKAGE.")
    if scheme == "file":
        return Path(rest)
    name = rest.replace("/", ".")
    try:
        spec = importlib.util.find_spec(name)  # imports the packages that it is in
    except (Exception, SystemExit) as error:
        if not isinstance(error, ModuleNotFoundError) or not f"{name}.".startswith(
            f"{error.name}."
        ):
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UserError(f"{SEARCHPATH}: importing '{name}' fails: {reason}.") from None
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"{SEARCHPATH}: there is no package '{name}'. Install it, or put its folder on "
            "PYTHONPATH."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def check_search_path(arguments: Sequence[str]) -> None:
    """Refuse configurations of the user's own that are hidden by others, or cannot be composed.

    Raises:
        UserError: a file has the name of one that is there already, cannot be read, or chooses in
            its own group.
    """
    origins = {name: str(CONF) for name in _config_names(CONF)}
    for label, folder in user_config_dirs(arguments):
        for name in _config_names(folder):
            if name in origins:
                raise UserError(
                    f"{name} is in {label} and in {origins[name]}, and the second would hide the "
                    "first. Rename the first."
                )
            origins[name] = label
            try:
                config: Any = OmegaConf.to_container(OmegaConf.load(folder / name))
            except Exception as error:  # of YAML, of the encoding, of OmegaConf
                reason = " ".join(str(error).split())
                raise UserError(f"{folder / name} cannot be read as YAML: {reason}.") from None
            _check_defaults(name.removesuffix(".yaml"), config)


def _check_defaults(name: str, config: Any) -> None:
    """Refuse a choice in the group of the file itself: it is ignored, or leads back to the file."""
    group = name.rpartition("/")[0]
    kinds = "(optional |override )?" if group in GLOBAL_GROUPS else "override "
    defaults = config.get("defaults") if isinstance(config, dict) else None
    for entry in defaults if group and isinstance(defaults, list) else ():
        for key, choice in entry.items() if isinstance(entry, dict) else ():
            if re.fullmatch(rf"{kinds}/{re.escape(group)}(@_global_\S*)?", str(key)):
                raise UserError(
                    f"{name}: a file of {group}/ cannot choose {group}. To build on another one "
                    f"write `defaults: [{choice}, _self_]`."
                )


def _config_names(folder: Path) -> Iterator[str]:
    yield from sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))


def single_values(arguments: Sequence[str]) -> list[str]:
    """The overrides among the arguments that give one value, and not several for a sweep."""
    return [
        a for a in arguments if re.fullmatch(r"[\w./@+~]+=([^,]*|\[.*\]|\{.*\}|'.*'|\".*\")", a)
    ]


def config_groups(arguments: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """The choices of each group, with the line that describes them.

    Args:
        arguments: of the command line, which may add the user's configurations.
    """
    groups: dict[str, dict[str, str]] = {}
    for folder in (CONF, *(path for _, path in user_config_dirs(arguments))):
        for name in _config_names(folder):
            group, _, choice = name.removesuffix(".yaml").rpartition("/")
            if group and not group.startswith("hydra"):
                groups.setdefault(group, {})[choice] = _description(folder / name)
    return dict(sorted(groups.items()))


def _description(path: Path) -> str:
    """The first comment of a configuration."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ")
        if line and not line.startswith("#"):
            break
    return ""


def help_text(arguments: Sequence[str]) -> str:
    """What `--help` shows: the choices of each group, then all settings.

    Hydra's own help takes a second longer, to list the groups that it has itself.

    Args:
        arguments: of the command line; its overrides are applied.
    """
    lines = [
        "Train, evaluate and report one hashing run; with -m a sweep of runs.",
        "",
        f"    {train_command('dataset=cifar10 bits=48')}",
        f"    {train_command('-m dataset=cifar10 bits=12,24,32,48 seed=0,1,2')}",
        "",
        "A group is chosen by GROUP=CHOICE; an optimizer or schedule of one phase by",
        "optimizer@training.hash.optimizer=CHOICE. --hydra-help lists Hydra's own options.",
        "",
    ]
    for group, choices in config_groups(arguments).items():
        lines.append(f"{group}:")
        width = max(map(len, choices))
        lines += [f"    {name:{width}}  {text}".rstrip() for name, text in choices.items()]
    overrides = [a for a in single_values(arguments) if not is_search_path(a)]
    cfg = compose_config([*overrides, *search_path_override(arguments)])
    return "\n".join([*lines, "", "Settings, as NAME=VALUE:", "", OmegaConf.to_yaml(cfg)])
