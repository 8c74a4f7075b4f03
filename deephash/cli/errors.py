"""A user's mistakes, reported in one sentence with the nearest valid name instead of a trace."""

import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deephash.cli.compose import (
    compose_config,
    config_groups,
    search_path_override,
    single_values,
)
from deephash.core.errors import UserError, did_you_mean
from deephash.core.ranks import is_rank_zero, should_report_error
from deephash.experiment.renames import CHOICES, renamed_setting

# As the user set it; in a process that Lightning launched it is always set.
WANTS_TRACE = os.environ.get("HYDRA_FULL_ERROR") == "1" and is_rank_zero()

LAUNCHERS = {"joblib": "joblib", "submitit_slurm": "slurm", "ray": "ray"}  # Hydra's name, ours


@contextmanager
def report_user_errors() -> Iterator[None]:
    """A user's mistake ends in its sentence and exit code 2, Ctrl-C in exit code 130.

    Hydra hides its exceptions unless HYDRA_FULL_ERROR is set, so it is set meanwhile; where the
    user has set it, the whole trace is shown.
    """
    set_by_user = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        if WANTS_TRACE or not _is_about_input(error):
            raise
        GlobalHydra.instance().clear()
        if should_report_error():
            print(f"error: {_explain(error)}", file=sys.stderr)
        sys.exit(2)
    finally:
        if set_by_user is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = set_by_user


def _is_about_input(error: Exception) -> bool:
    """Whether it is a user's mistake: our error, or one of Hydra's, ValueErrors included."""
    if isinstance(error, (UserError, HydraException, OmegaConfBaseException)):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return "hydra" in Path(frames[-1].filename).parts


def _explain(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _explain_missing_config(error)
    if isinstance(error, ConfigCompositionException):
        setting = re.match(r"Could not override '([^']+?)'?\.?\s", f"{error} ")
        key = re.search(r"full_key: (\S+)", str(error.__cause__))  # within a value like {key: 1}
        if setting:
            is_within = key is not None and key[1].startswith(f"{setting[1]}.")
            return _explain_unknown_setting(key[1] if key and is_within else setting[1])
    return " ".join(str(error).split())


def _explain_missing_config(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if group == "hydra/launcher" and name in LAUNCHERS:
        extra = LAUNCHERS[name]
        return f"launcher={extra} needs a package: pip install 'deephash[{extra}]'"
    if (group, name) in CHOICES:
        return f"{group}={name} is now {CHOICES[group, name]}."
    hint = did_you_mean(name, error.options) if error.options else ""
    place = re.match(r"In '([^']+)'", str(error))
    origin = f"{place[1]}: " if place and place[1] != "config" else ""
    return f"{origin}{group}={name}: there is no {group} '{name}'. {hint}".rstrip()


def _explain_unknown_setting(name: str) -> str:
    for argument in sys.argv[1:]:  # a group that was renamed, with a choice of it
        choice = tuple(argument.partition("=")[::2])
        if choice[0] == name and choice in CHOICES:
            return f"{argument} is now {CHOICES[choice]}."
    valid = _valid_settings()
    new_name = renamed_setting(name, valid)
    if new_name:
        return f"{name} is now {new_name}."
    hint = did_you_mean(name, {*valid, *config_groups(sys.argv[1:])})
    if name.startswith("trainer.") and hint.startswith("Valid:"):
        hint = f"If Lightning's Trainer has it, add it by +{name}=..."
    if hint.startswith("Valid:"):  # a hundred names
        hint = "`--help` lists all settings."
    return f"{name}: there is no such setting. {hint}"


def _valid_settings() -> list[str]:
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
        cfg = compose_config([*chosen, *search_path])
    except HydraException:  # what is chosen has a mistake of its own
        cfg = compose_config(search_path)
    values: Any = OmegaConf.to_container(cfg, resolve=False)

    def names(node: Any, prefix: str = "") -> Iterator[str]:
        for key, value in node.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from names(value, f"{prefix}{key}.")

    return list(names(values))
