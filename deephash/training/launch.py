"""Launch the processes of a distributed training, and end them together."""

import os
import re
import signal
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
from deephash.core.program import resume_hint
from deephash.core.ranks import (
    LAUNCH_MARK,
    is_launched_by_rank_zero,
    is_rank_zero,
    parent_is_gone,
    should_report_error,
)

FABRIC_SETTINGS = ("accelerator", "devices", "num_nodes", "strategy")
GRACE_SECONDS = 60  # for this process to end by itself, and say why, after another has ended
STOPPED = (130, -signal.SIGINT, -signal.SIGTERM)  # exit codes after Ctrl-C or SIGTERM
LOST_CONNECTION = "closed by peer|reset by peer|Broken pipe|Connection refused|[Tt]imed out|NCCL"


@contextmanager
def launch_processes(
    trainer_config: dict[str, Any], world_size: int, run_dir: Path, arguments: str = ""
) -> Iterator[None]:
    """Launch the other processes of this machine, unless torchrun or Slurm did, and join them.

    They run the same command and print nothing. None outlives this process.

    Args:
        trainer_config: settings of Lightning's Trainer.
        world_size: number of processes over all machines.
        run_dir: named in the error, as the run to resume.
        arguments: that the command to resume needs, too.

    Raises:
        UserError: a process was lost.
    """
    if world_size == 1:
        yield
        return
    fabric = Fabric(
        **{key: trainer_config[key] for key in FABRIC_SETTINGS if key in trainer_config}
    )
    watcher = _Watcher(fabric, run_dir, arguments)
    watcher.start()
    try:
        with _mark_children():
            fabric.launch()
        watcher.are_joined.set()
        with (
            open(os.devnull, "w") as devnull,
            redirect_stdout(sys.stdout if is_rank_zero() else devnull),
        ):
            yield
        for child in watcher.children():
            child.wait()
    except RuntimeError as error:
        if re.search(LOST_CONNECTION, str(error)):
            _await_parent_exit()
            raise UserError(_lost_process_message(run_dir, arguments)) from None
        raise
    finally:
        watcher.has_ended.set()
        watcher.kill_children()


@contextmanager
def _mark_children() -> Iterator[None]:
    """Have processes that are launched meanwhile know that this one did it."""
    if is_launched_by_rank_zero():  # it has the mark, and launches none
        yield
        return
    os.environ[LAUNCH_MARK] = "1"
    try:
        yield
    finally:
        del os.environ[LAUNCH_MARK]


class _Watcher(threading.Thread):
    """Ends this process if it waits for a lost one, of which nothing else would tell it.

    So it is between GPUs, and until all processes have joined: meanwhile this one does not see
    Ctrl-C or SIGTERM either, which have ended the others.

    Args:
        fabric: that launches the processes.
        run_dir: of the run.
        arguments: that the command to resume needs, too.
    """

    def __init__(self, fabric: Fabric, run_dir: Path, arguments: str) -> None:
        super().__init__(daemon=True)
        self.are_joined = threading.Event()
        self.has_ended = threading.Event()
        self._fabric, self._run_dir, self._arguments = fabric, run_dir, arguments
        self._children: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()

    def children(self) -> list[subprocess.Popen[bytes]]:
        """The processes that Lightning has launched so far, hidden from its own observer.

        The observer kills this process as soon as one of them ends, even while it reports why.
        """
        with self._lock:
            observed = getattr(self._fabric.strategy.launcher, "procs", [])
            while observed:
                self._children.append(observed.pop())
            return self._children.copy()

    def kill_children(self) -> None:
        """They write no files, so none is left half-written."""
        for child in self.children():
            child.kill()
            child.wait()

    def run(self) -> None:
        """Look every second."""
        while not self.has_ended.wait(timeout=1):
            codes = [code for child in self.children() if (code := child.poll())]
            if not codes and not (is_launched_by_rank_zero() and parent_is_gone()):
                continue
            if self.has_ended.wait(timeout=GRACE_SECONDS if self.are_joined.is_set() else 1):
                return
            is_stopped = not self.are_joined.is_set() and codes and codes[0] in STOPPED
            if is_stopped:
                print(f"\nStopped.{resume_hint(self._run_dir, self._arguments)}", file=sys.stderr)
            elif should_report_error():
                message = _lost_process_message(self._run_dir, self._arguments)
                print(f"error: {message}", file=sys.stderr, flush=True)
            self.kill_children()
            os._exit(130 if is_stopped else 2)


def _await_parent_exit() -> None:
    """Wait until it is settled who reports the error: the sockets of a killed process close before
    it is gone. If rank zero is alive, it ends this process meanwhile.
    """
    deadline = time.monotonic() + 5
    while not is_rank_zero() and not parent_is_gone() and time.monotonic() < deadline:
        time.sleep(0.05)


def _lost_process_message(run_dir: Path, arguments: str) -> str:
    hint = resume_hint(run_dir, arguments)
    return f"a process of this run was lost, and the others were stopped.{hint}"
