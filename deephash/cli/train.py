"""`deephash train` and `python train.py`: a run, a sweep or a search for settings, by Hydra.

Nothing heavier than Hydra is imported before it is known that a run begins.
"""

import sys
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deephash.cli.arguments import split_options
from deephash.cli.compose import compose_config, help_text, prepare_arguments
from deephash.cli.errors import report_user_errors
from deephash.cli.phase_parts import replace_phase_parts
from deephash.core.conf import CONF
from deephash.core.errors import UserError
from deephash.core.ranks import check_ranks
from deephash.experiment.console import log_to_stdout
from deephash.experiment.run_dir import is_multirun, task_overrides

COMMAND = "train"  # the word before the settings, where there is one
_argv = sys.argv  # of the whole command, for processes that Lightning launches


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def run_task(cfg: DictConfig) -> float:
    """Run what `cfg` says; return the validation mAP, the objective of sweepers."""
    sys.argv = _argv
    with report_user_errors(), log_to_stdout():
        cfg = replace_phase_parts(cfg, task_overrides())
        if is_multirun() and cfg.get("tuning"):
            raise UserError("-m with tuning=optuna: a search starts its runs itself. Omit -m.")
        if is_multirun():
            from deephash.experiment.sweep import run_sweep_job

            return run_sweep_job(cfg, Path(HydraConfig.get().runtime.output_dir))
        if cfg.get("tuning"):
            from deephash.experiment.tuning import tune

            return tune(cfg)
        from deephash.experiment.run import run

        return run(cfg)


def print_config(arguments: Namespace) -> None:
    """Print the settings of a run, as `--cfg job` or `--cfg all` asks.

    Args:
        arguments: of the command line, parsed by Hydra.
    """
    cfg: Any = compose_config(arguments.overrides, with_hydra=arguments.cfg == "all")
    if arguments.package not in (None, "_global_"):
        try:
            cfg = OmegaConf.select(cfg, arguments.package)
        except OmegaConfBaseException:  # no name, such as `[`
            cfg = None
        if cfg is None:
            raise UserError(f"--package {arguments.package}: there is no such setting.")
    if arguments.resolve and OmegaConf.is_config(cfg):
        OmegaConf.resolve(cfg)
    print(OmegaConf.to_yaml(cfg).rstrip() if OmegaConf.is_config(cfg) else cfg)


def main() -> None:
    """Entry point: settings are the arguments of the process, after an optional `train`."""
    global _argv
    _argv = list(sys.argv)
    has_command = sys.argv[1:2] == [COMMAND]
    sys.argv = [sys.argv[0], *sys.argv[2 if has_command else 1 :]]
    try:
        with report_user_errors():
            options, _ = split_options(sys.argv[1:])
            if "--version" in options:
                print(f"deephash {version('deephash')}")
                return
            if "--help" in options:
                print(help_text(sys.argv[1:]))
                return
            check_ranks()
            sys.argv[1:] = prepare_arguments(sys.argv[1:])
            arguments = get_args_parser().parse_args(sys.argv[1:])
            # Hydra would show the phases before their optimizers and schedulers are replaced.
            if arguments.cfg in ("job", "all"):
                print_config(arguments)
                return
            run_task()
    finally:
        sys.argv = _argv
