"""Launch the processes of a distributed training, and end them together."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from deephash.core.errors import UserError
from deephash.core.program import resume_command
from deephash.core.ranks import is_rank_zero, parent_is_gone

FABRIC_SETTINGS = ("accelerator", "devices", "num_nodes", "strategy")
GRACE_SECONDS = 60  # for this process to end by itself, and say why, after another has ended
LOST_CONNECTION = "closed by peer|reset by peer|Broken pipe|Connection refused|[Tt]imed out|NCCL"


@contextmanager
def launch_processes(
    trainer_config: dict[str, Any], world_size: int, run_dir: Path
) -> Iterator[None]:
    """Launch the other processes of this machine, unless torchrun or Slurm did, and join them.

    They run the same command and print nothing. None outlives this process.

    Args:
        trainer_config: settings of Lightning's Trainer.
        world_size: number of processes over all machines.
        run_dir: named in the error, as the run to resume.

    Raises:
        UserError: a process was lost.
    """
    if world_size == 1:
        yield
        return
    fabric = Fabric(
        **{key: trainer_config[key] for key in FABRIC_SETTINGS if key in trainer_config}
    )
    fabric.launch()
    children = _take_over_children(fabric)
    ended = threading.Event()
    threading.Thread(target=_watch, args=(children, ended, run_dir), daemon=True).start()
    try:
        with (
            open(os.devnull, "w") as devnull,
            redirect_stdout(sys.stdout if is_rank_zero() else devnull),
        ):
            yield
        for child in children:
            child.wait()
    except RuntimeError as error:
        if re.search(LOST_CONNECTION, str(error)):
            _await_parent_exit()
            raise UserError(_lost_process_message(run_dir)) from None
        raise
    finally:
        ended.set()
        _kill(children)


def _take_over_children(fabric: Fabric) -> list[subprocess.Popen[bytes]]:
    """The processes that Lightning launched, hidden from its own observer.

    The observer kills this process as soon as one of them ends, even while it reports why.
    """
    observed = getattr(fabric.strategy.launcher, "procs", [])
    children = list(observed)
    observed.clear()
    return children


def _watch(children: list[subprocess.Popen[bytes]], ended: threading.Event, run_dir: Path) -> None:
    """End this process if it waits for a lost one: between GPUs nothing else would tell it."""
    while not ended.wait(timeout=1):
        if any(child.poll() for child in children) and not ended.wait(timeout=GRACE_SECONDS):
            print(f"error: {_lost_process_message(run_dir)}", file=sys.stderr, flush=True)
            _kill(children)
            os._exit(2)


def _kill(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:  # they write no files, so none is left half-written
        child.kill()
        child.wait()


def _await_parent_exit() -> None:
    """Wait until it is settled who reports the error: the sockets of a killed process close before
    it is gone. If rank zero is alive, it ends this process meanwhile.
    """
    deadline = time.monotonic() + 5
    while not is_rank_zero() and not parent_is_gone() and time.monotonic() < deadline:
        time.sleep(0.05)


def _lost_process_message(run_dir: Path) -> str:
    return (
        "a process of this run was lost, and the others were stopped. "
        f"Resume with: {resume_command(run_dir)}"
    )
