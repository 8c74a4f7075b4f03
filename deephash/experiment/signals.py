"""Runs that are stopped from outside: by Ctrl-C, SIGTERM, or Slurm's notice that time is up.

What is finished of a run lies in its folder, up to the last epoch.
"""

import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from deephash.core.errors import UserError
from deephash.core.program import resume_hint
from deephash.core.ranks import is_launched_by_rank_zero, is_rank_zero, should_report_error


@contextmanager
def interruptible(config: Path, arguments: str = "") -> Iterator[None]:
    """On Ctrl-C or SIGTERM, say how to resume the run whose settings lie in `config`, and exit.

    The exit code is 130. On SIGUSR1 in a Slurm job, the job is queued again first.

    Args:
        config: the settings.
        arguments: that the command to resume needs, too.

    Raises:
        UserError: a module that the run uses called `sys.exit`.
    """
    handlers: dict[signal.Signals, Any] = {signal.SIGTERM: signal.default_int_handler}
    if is_launched_by_rank_zero():
        # Rank zero receives the signal as well, and ends this process. If this one left earlier,
        # rank zero might wait for it in an operation between GPUs, where no signal reaches it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        handlers[signal.SIGTERM] = signal.SIG_IGN
    if "SLURM_JOB_ID" in os.environ:
        handlers[signal.SIGUSR1] = _requeue_slurm_job
    installed = [number for number in handlers if signal.getsignal(number) == signal.SIG_DFL]
    for number in installed:  # the launcher of a sweep may have handlers of its own
        signal.signal(number, handlers[number])
    try:
        with _repeat_dropped_interrupts():
            yield
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns the first into the second.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise UserError(_describe_exit(stop)) from None
        if should_report_error():
            print(f"\nStopped.{resume_hint(config.parent, arguments)}", file=sys.stderr)
        sys.exit(130)
    finally:
        for number in installed:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _repeat_dropped_interrupts() -> Iterator[None]:
    """Send a signal again whose exception was raised where Python drops it, as in `__del__`."""
    hook = sys.unraisablehook

    def repeat_or_report(dropped: Any) -> None:
        if dropped.exc_type is not KeyboardInterrupt:
            hook(dropped)
            return
        for number in signal.SIGINT, signal.SIGTERM:  # either may be ignored
            if signal.getsignal(number) is signal.default_int_handler:
                # Later, for now it would be dropped again.
                threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
                return

    sys.unraisablehook = repeat_or_report
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _describe_exit(stop: SystemExit) -> str:
    frames = traceback.extract_tb(stop.__traceback__)
    # W&B replaces sys.exit by a function of its own, which calls it.
    caller = next(f for f in reversed(frames) if "wandb" not in Path(f.filename).parts)
    place = f"{caller.filename}, line {caller.lineno}, in {caller.name}"
    return f"sys.exit({stop.code!r}) was called in {place}. Raise an exception there instead."


def is_slurm_restart() -> bool:
    """Whether Slurm has started this job before."""
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return count.isdecimal() and int(count) > 0


def _requeue_slurm_job(number: int, frame: FrameType | None) -> None:
    if not is_rank_zero():
        return  # rank zero receives the signal too, and must not wait for this one
    array, task = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    subprocess.run(["scontrol", "requeue", job], check=False)
    raise KeyboardInterrupt
