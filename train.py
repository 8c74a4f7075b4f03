"""Train, evaluate and report one hashing run: `python train.py dataset=cifar10 bits=48`."""

import signal
from pathlib import Path

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no trace of the imports upon Ctrl-C

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from deephash.cli.errors import command_line
from deephash.core.errors import UserError
from deephash.experiment.run import run
from deephash.experiment.run_dir import is_multirun
from deephash.experiment.sweep import run_sweep_job
from deephash.experiment.tuning import search


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float:
    """Run what `cfg` says; return the validation mAP, the objective of sweepers."""
    with command_line():
        if is_multirun() and cfg.get("search"):
            raise UserError("-m with search=optuna: a search begins its runs itself. Leave -m out.")
        if is_multirun():
            return run_sweep_job(cfg, Path(HydraConfig.get().runtime.output_dir))
        return search(cfg) if cfg.get("search") else run(cfg)


if __name__ == "__main__":
    with command_line():  # errors of the command line itself
        main()
