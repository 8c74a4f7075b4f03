"""A user's mistakes, reported in one sentence with the nearest valid name instead of a trace."""

import inspect
import os
import re
import signal
import sys
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import omegaconf
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deephash.cli.compose import (
    SEARCHPATH,
    compose_nodes,
    config_groups,
    default_choices,
    is_search_path,
    search_path_override,
    single_values,
    user_config_dirs,
)
from deephash.core.errors import UserError, did_you_mean
from deephash.core.output import tolerate_lost_output
from deephash.core.ranks import is_rank_zero, should_report_error
from deephash.data.datasets.torchvision_names import find_set
from deephash.experiment.hints import find_meaning
from deephash.experiment.renames import CHOICES, renamed_setting
from deephash.experiment.settings import GLOBAL_GROUPS, TRAINER_SETTINGS_OF_THE_RUN

# As the user set it; in a process that Lightning launched it is always set.
LIBRARIES = [Path(inspect.getfile(library)).parent for library in (hydra, omegaconf)]
WANTS_TRACE = os.environ.get("HYDRA_FULL_ERROR") == "1" and is_rank_zero()

MAX_NAMES = 12  # that a hint lists
CANNOT_BE_REMOVED = "~{}: this setting cannot be removed. Omit it."
LAUNCHERS = {"joblib": "joblib", "submitit_slurm": "slurm", "ray": "ray"}  # Hydra's name, ours


@contextmanager
def report_user_errors() -> Iterator[None]:
    """A user's mistake ends in its sentence and exit code 2, Ctrl-C in exit code 130.

    Hydra hides its exceptions unless HYDRA_FULL_ERROR is set, so it is set meanwhile; where the
    user has set it, the whole trace is shown.
    """
    set_by_user = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    is_default = signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    if is_default:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with tolerate_lost_output():
            yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if WANTS_TRACE or not _is_about_input(error):
            raise
        GlobalHydra.instance().clear()
        if should_report_error():
            print(f"error: {_explain(error)}", file=sys.stderr)
        sys.exit(2)
    finally:
        if is_default:  # Ctrl-C that is pressed again leaves no traceback of Python's own end
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if set_by_user is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = set_by_user


def _is_about_input(error: Exception) -> bool:
    """Whether it is a user's mistake: our error, one of Hydra's, or before the run begins."""
    if isinstance(error, (UserError, HydraException, OmegaConfBaseException)):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    names = [frame.name for frame in frames]
    if isinstance(error, RecursionError):
        return "create_defaults_list" in names
    if "run_task" not in names and (isinstance(error, OSError) or _hydra_settings()):
        return any(map(_is_of_hydra, frames))  # such as of the folder of a sweep, which it makes
    return isinstance(error, ValueError) and _is_of_hydra(frames[-1])


def _is_of_hydra(frame: traceback.FrameSummary) -> bool:
    return any(Path(frame.filename).is_relative_to(library) for library in LIBRARIES)


def _hydra_settings() -> list[str]:
    pattern = r"[+~]*(hydra[./]|launcher=)"
    settings = [argument for argument in sys.argv[1:] if re.match(pattern, argument)]
    return [setting for setting in settings if not is_search_path(setting)]


def _explain(error: Exception) -> str:
    if isinstance(error, UserError):
        return _explain_removal(str(error)) or str(error)
    if isinstance(error, RecursionError):
        return "The defaults of a file of your own lead back to this file. Include it once."
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return f"{error.filename}: {error.strerror}. Name another folder."
    if _hydra_settings() and not isinstance(error, (HydraException, OmegaConfBaseException)):
        reason = " ".join(f"{type(error).__name__} {error}".split())
        return f"{' '.join(_hydra_settings())}: Hydra fails with this setting ({reason})."
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _explain_missing_config(error)
    if isinstance(error, ConfigCompositionException):
        in_a_file = _explain_user_config(str(error))
        if in_a_file:
            return in_a_file
        setting = re.match(r"Could not override '([^']+?)'?\.?\s", f"{error} ")
        key = re.search(r"full_key: (\S+)", str(error.__cause__))  # within a value like {key: 1}
        if setting:
            is_within = key is not None and key[1].startswith(f"{setting[1]}.")
            return _explain_unknown_setting(key[1] if key and is_within else setting[1])
        exists = re.match(r"Could not append to config. An item is already at '(.+?)'", str(error))
        if exists:
            return f"+{exists[1]}=...: {exists[1]} has a value already. Omit the '+'."
        missing = re.match(r"Could not delete from config. '(.+?)' does not exist", str(error))
        if missing:
            return _explain_unknown_setting(missing[1])
        merged = re.match(r"Error merging override (.+?=([{\[]).*)", str(error))
        if merged:
            expected = "a list, [A,B]" if merged[2] == "{" else "settings, {NAME: VALUE}"
            return f"{merged[1]}: the value must be {expected}."
        refused = re.match(r"Error merging override (\S+)", str(error))
        if refused and error.__cause__:
            return f"{refused[1]}: {str(error.__cause__).splitlines()[0]}."
    return " ".join(str(error).split())


def _explain_removal(message: str) -> str:
    """The answer to a setting that the run lacks because the command line removes it."""
    lacking = r"(\S+) has no value\.|(\S+): .* missing a required argument: '(\w+)'"
    match = re.match(lacking, message)
    name = match and (match[1] or f"{match[2]}.{match[3]}")
    return CANNOT_BE_REMOVED.format(name) if name and _is_removed(name) else ""


def _is_removed(name: str) -> bool:
    return any(argument.partition("=")[0] == f"~{name}" for argument in sys.argv[1:])


def _explain_missing_config(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if group == "hydra/launcher" and name in LAUNCHERS:
        extra = LAUNCHERS[name]
        return f"launcher={extra} needs a package: pip install 'deephash[{extra}]'"
    if (group, name) in CHOICES:
        return f"{group}={name} is now {CHOICES[group, name]}."
    options = error.options or config_groups(sys.argv[1:]).get(group)
    hint = did_you_mean(name, options) if options else ""
    place = re.match(r"In '([^']+)'", str(error))
    origin = place[1] if place and place[1] != "config" else _find_user_config(group, name)
    if hint.startswith("Valid:") and not user_config_dirs(sys.argv[1:]):
        hint += f" A file of your own needs --config-dir FOLDER or {SEARCHPATH}=[pkg://mylab.conf]."
    if options and name.lower() in options:
        hint = f"Did you mean '{name.lower()}'?"
    elif group == "dataset" and find_set(name):
        hint = f"Use dataset=torchvision dataset.name={find_set(name)}"
    elif group == "backbone":
        hint += f" A model of timm: backbone=timm backbone.model_name={name}"
    origin = f"{origin}: " if origin else ""
    return f"{origin}{group}={name}: {group} has no choice '{name}'. {hint}".rstrip()


def _find_user_config(group: str, name: str) -> str:
    """The user's own configuration that makes this choice; empty where the command line does."""
    if any(name in argument for argument in sys.argv[1:]):
        return ""
    for _, folder in user_config_dirs(sys.argv[1:]):
        for path in sorted(folder.rglob("*.yaml")):
            choice = rf"/{re.escape(group)}(@\S+)?: *{re.escape(name)}\b"
            if re.search(choice, path.read_text(encoding="utf-8")):
                return str(path.relative_to(folder).with_suffix(""))
    return ""


def _explain_user_config(message: str) -> str | None:
    """What is wrong with the defaults list of a user's own configuration, by Hydra's message."""
    twice = re.match(r"(\S+) appears more than once in the final defaults list", message)
    if twice:
        group = twice[1]
        return f"{group} is chosen twice. In a file of your own write `override /{group}: ...`."
    match = re.match(r"In '([^']+)': Could not override '([^'@]+)(?:@([^']+))?'", message)
    if not match:
        return None
    file, group, package = match.groups()
    own = file.rpartition("/")[0]
    if package and package.startswith(f"{own}."):
        if own in GLOBAL_GROUPS:
            return f"{file}: the file must begin with '# @package _global_'."
        package = package.removeprefix(f"{own}.")
        return f"{file}: write `override /{group}@_global_.{package}: ...`."
    key = f"{group}@{package}" if package else group
    keys = default_choices()
    if key in keys:
        return f"{file} cannot override {key}, which is chosen after {own}. Give it by {key}=..."
    return f"{file}: there is no '{key}' to override. {did_you_mean(key, keys)}"


def _explain_unknown_setting(name: str) -> str:
    for argument in sys.argv[1:]:  # a group that was renamed, with a choice of it
        choice = tuple(argument.partition("=")[::2])
        if choice[0] == name and choice in CHOICES:
            return f"{argument} is now {CHOICES[choice]}."
    groups = config_groups(sys.argv[1:])
    if name in groups:  # given no choice, but values
        return f"{name}: choose one of {', '.join(groups[name])}."
    if name.startswith("hydra.launcher."):
        return f"{name}: the launcher has no such setting. Choose one: launcher=joblib, ray, slurm."
    if name.startswith("hydra."):
        return f"{name}: Hydra has no such setting. `--cfg hydra` lists its settings."
    valid = _valid_settings()
    if name in valid and _is_removed(name):
        return CANNOT_BE_REMOVED.format(name)
    new_name = renamed_setting(name, valid)
    if new_name:
        return f"{name} is now {new_name}."
    parent, _, leaf = name.rpartition(".")
    siblings = [key.rpartition(".")[2] for key in valid if key.rpartition(".")[0] == parent != ""]
    hint = did_you_mean(leaf, siblings).replace("mean '", f"mean '{parent}.")
    of_logger = re.match(r"logger\.(\w+)\.", name)
    if of_logger and of_logger[1] in groups["logger"] and not siblings:
        hint = f"Choose logger={of_logger[1]}, which has such settings."
    elif parent == "dataset.options" and parent in valid:
        hint = f"Write '{parent}={{{leaf}: ...}}'"
    elif name.startswith("trainer."):
        instead = TRAINER_SETTINGS_OF_THE_RUN.get(name.removeprefix("trainer."))
        if instead:
            hint = f"Use {instead}"
        elif not hint.startswith("Did") and find_meaning(name):
            hint = find_meaning(name)
        elif hint.startswith("Valid:"):
            hint = f"If Lightning's Trainer has it, add it by +{name}=..."
    elif not hint.startswith("Did") and find_meaning(name) and not _ends_a_setting(name, valid):
        hint = find_meaning(name)
    elif parent in groups and not siblings:
        hint = f"Choose one by {parent}={', '.join(groups[parent])}."
    elif not siblings:
        hint = did_you_mean(name, {*valid, *groups})
    if hint.startswith("Valid:") and not 0 < len(siblings) <= MAX_NAMES:
        hint = "`--help` lists all settings."
    return f"{name}: there is no such setting. {hint}"


def _ends_a_setting(name: str, valid: Collection[str]) -> bool:
    """Whether only the beginning of the name is missing, as of `hash.epochs`."""
    return "." in name and any(key.endswith(f".{name}") for key in valid)


def _valid_settings() -> dict[str, Any]:
    """All settings by dotted name, under the groups chosen on the command line."""
    arguments = sys.argv[1:]
    groups = config_groups(arguments)
    chosen = [
        argument
        for argument in single_values(arguments)
        if argument.partition("=")[0].partition("@")[0] in groups and "={" not in argument
    ]
    search_path = search_path_override(arguments)
    try:
        cfg = compose_nodes([*chosen, *search_path])
    except HydraException:  # what is chosen has a mistake of its own
        cfg = compose_nodes(search_path)
    values: Any = OmegaConf.to_container(cfg, resolve=False)

    def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            yield f"{prefix}{key}", value
            if isinstance(value, dict):
                yield from flatten(value, f"{prefix}{key}.")

    return dict(flatten(values))
