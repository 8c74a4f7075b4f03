"""The command line's own mistakes: an unknown name or setting, told with the nearest valid one."""

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deephash.core.errors import UserError, did_you_mean
from deephash.core.ranks import is_rank_zero, should_report_error

# As the user set it; to a process that Lightning starts it looks as if always.
WANTS_TRACE = os.environ.get("HYDRA_FULL_ERROR") == "1" and is_rank_zero()

CONF = Path(__file__).resolve().parent.parent / "conf"

LAUNCHERS = {"joblib": "joblib", "submitit_slurm": "slurm", "ray": "ray"}  # Hydra's name, ours


def composed(overrides: Sequence[str]) -> DictConfig:
    """`conf/` with what is said on a command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@contextmanager
def command_line() -> Iterator[None]:
    """Around a `@hydra.main`: a user's mistake ends in its sentence and exit code 2, no trace.

    Ctrl-C ends in exit code 130.

    Hydra hides its exceptions unless HYDRA_FULL_ERROR is set, so it is set meanwhile; where the
    user has set it, the whole trace is shown.
    """
    as_set_by_user = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if WANTS_TRACE:
            raise
        GlobalHydra.instance().clear()
        if should_report_error():
            print(f"error: {_explain(error)}", file=sys.stderr)
        sys.exit(2)
    finally:
        if as_set_by_user is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = as_set_by_user


def _explain(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group == "hydra/launcher" and name in LAUNCHERS:
            extra = LAUNCHERS[name]
            return f"launcher={extra} needs a package: pip install 'deephash[{extra}]'"
        return f"{group}={name}: there is no {group} '{name}'. {did_you_mean(name, error.options)}"
    unknown = re.match(r"Could not override '(.+?)'", str(error))
    if isinstance(error, ConfigCompositionException) and unknown:
        key = unknown[1]
        return f"{key}: there is no such setting. {did_you_mean(key, _valid_settings())}"
    return " ".join(str(error).split())


def _valid_settings() -> list[str]:
    """All settings by dotted name, under the groups chosen on the command line."""
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    chosen = [word for word in sys.argv[1:] if "=" in word and word.partition("=")[0] in groups]
    values = OmegaConf.to_container(composed(chosen), resolve=False)

    def names(node: Any, prefix: str = "") -> Iterator[str]:
        for key, value in node.items():
            yield prefix + key
            if isinstance(value, dict):
                yield from names(value, f"{prefix}{key}.")

    return list(names(values))
