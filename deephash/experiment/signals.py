"""A run that is stopped from outside: by Ctrl-C, by SIGTERM, by Slurm's notice that its time ends.

What is finished of it lies in its folder, up to the last epoch.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from deephash.core.ranks import is_rank_zero, launched_world_size, should_report_error


@contextmanager
def interruptible(config: Path) -> Iterator[None]:
    """Upon Ctrl-C or SIGTERM, say how to go on with the run whose settings lie in `config`.

    Exit code 130. Upon SIGUSR1 in a Slurm job, it is queued again first.
    """
    handlers: dict[signal.Signals, Any] = {signal.SIGTERM: signal.default_int_handler}
    if not is_rank_zero() and launched_world_size() == 1:
        # The first is told as well, and ends this one. Were this one to leave before, the first
        # might wait for it in an operation between GPUs, where no signal reaches it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "SLURM_JOB_ID" in os.environ:
        handlers[signal.SIGUSR1] = _queue_again
    ours = [sent for sent in handlers if signal.getsignal(sent) == signal.SIG_DFL]
    for sent in ours:  # a launcher of sweeps may have handlers of its own
        signal.signal(sent, handlers[sent])
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        on = f" Go on with: python train.py resume={config.parent}" if config.is_file() else ""
        if should_report_error():
            print(f"\nStopped.{on}", file=sys.stderr)
        sys.exit(130)
    finally:
        for sent in ours:
            signal.signal(sent, signal.SIG_DFL)


class KeepSigtermHandler(Callback):
    """Keeps SIGTERM from Lightning.

    Its handler waits for the other processes, which need not have been told.
    """

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the handler back that was there before the training."""
        signal.signal(signal.SIGTERM, self.handler)


def restarted() -> bool:
    """Whether Slurm began this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0


def _queue_again(sent: int, frame: FrameType | None) -> None:
    if not is_rank_zero():
        return  # the first, told as well, must not wait for this one; Slurm ends both
    array, task = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    subprocess.run(["scontrol", "requeue", job], check=False)
    raise KeyboardInterrupt
