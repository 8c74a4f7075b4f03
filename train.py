"""Train, evaluate and report one hashing run: `python train.py dataset=cifar10 bits=48`."""

import signal
from pathlib import Path

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no trace of the imports upon Ctrl-C

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from deephash.command_line import command_line
from deephash.errors import UserError
from deephash.folder import in_a_sweep
from deephash.run import run
from deephash.search import search
from deephash.sweep import one_of_many


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float:
    """Run what `cfg` says; return the validation mAP, the objective of sweepers."""
    with command_line():
        if in_a_sweep() and cfg.get("search"):
            raise UserError("-m with search=optuna: a search begins its runs itself. Leave -m out.")
        if in_a_sweep():
            return one_of_many(cfg, Path(HydraConfig.get().runtime.output_dir))
        return search(cfg) if cfg.get("search") else run(cfg)


if __name__ == "__main__":
    with command_line():  # errors of the command line itself
        main()
