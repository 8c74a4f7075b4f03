"""`deephash train` and `python train.py`: a run, a sweep or a search for settings, by Hydra.

Nothing heavier than Hydra is imported before it is known that a run begins.
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from deephash.cli.compose import CONF, check_phase_parts, help_text, prepare_arguments
from deephash.cli.errors import report_user_errors
from deephash.core.errors import UserError
from deephash.experiment.console import log_to_stdout
from deephash.experiment.run_dir import is_multirun

COMMAND = "train"  # the word before the settings, where there is one
_argv = sys.argv  # of the whole command, for processes that Lightning launches


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def run_task(cfg: DictConfig) -> float:
    """Run what `cfg` says; return the validation mAP, the objective of sweepers."""
    sys.argv = _argv
    with report_user_errors(), log_to_stdout():
        check_phase_parts(cfg, HydraConfig.get().overrides.task)
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


def main() -> None:
    """Entry point: settings are the arguments of the process, after an optional `train`."""
    global _argv
    _argv = list(sys.argv)
    has_command = sys.argv[1:2] == [COMMAND]
    sys.argv = [sys.argv[0], *sys.argv[2 if has_command else 1 :]]
    try:
        with report_user_errors():
            if {"--help", "-h"} & set(sys.argv[1:]):
                print(help_text(sys.argv[1:]))
                return
            sys.argv[1:] = prepare_arguments(sys.argv[1:])
            run_task()
    finally:
        sys.argv = _argv
