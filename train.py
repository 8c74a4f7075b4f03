"""Train, evaluate and report one hashing run: `python train.py dataset=cifar10 bits=48`."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no trace of the imports upon Ctrl-C

import hydra
from omegaconf import DictConfig

from deephash.command_line import command_line
from deephash.run import in_a_sweep, run
from deephash.sweep import one_of_many


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float:
    """Run what `cfg` says; return the validation mAP, the objective of sweepers."""
    with command_line():
        return one_of_many(cfg) if in_a_sweep() else run(cfg)


if __name__ == "__main__":
    with command_line():  # errors of the command line itself
        main()
