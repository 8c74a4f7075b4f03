"""Rank and world size, without importing torch: the command line needs them before that."""

import os
import sys
from collections.abc import Iterable

from deephash.core.errors import UserError

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # set by torchrun, Lightning, Slurm
WORLD_SIZE_VARIABLES = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")  # set by torchrun, Slurm
LAUNCH_MARK = "DEEPHASH_LAUNCHED"  # an environment variable that rank zero gives its children
IS_LAUNCHED = LAUNCH_MARK in os.environ  # read once: rank zero sets it while it launches them
PARENT_PID = os.getppid()  # in a process that Lightning launched, this is rank zero


def rank() -> int:
    """The global rank of this process, also before the process group is initialised."""
    torch_distributed = sys.modules.get("torch.distributed")
    if torch_distributed is not None and torch_distributed.is_initialized():
        return torch_distributed.get_rank()
    # Beside Lightning's own, an interactive shell of Slurm or a stray variable tells another rank.
    if IS_LAUNCHED:
        return next(iter(_read_numbers(["LOCAL_RANK"])), 0)
    told = next(iter(_read_numbers(RANK_VARIABLES)), 0)
    return told if told < launched_world_size() else 0


def check_ranks() -> None:
    """Refuse a rank in the environment that no launcher has set.

    Lightning would go by it, and a process that is not rank zero writes no files.

    Raises:
        UserError: it is no number, or not below the number of processes.
    """
    for name in RANK_VARIABLES:
        value = os.environ.get(name, "0")
        if not value.isdecimal():
            raise UserError(f"{name}={value} is no rank of a process. Remove it: unset {name}")
        if not IS_LAUNCHED and int(value) >= launched_world_size():
            raise UserError(
                f"{name}={value} says that this is one of several processes, but WORLD_SIZE does "
                f"not say of how many. Start them by torchrun, or remove it: unset {name}"
            )


def is_rank_zero() -> bool:
    """Whether this process is the one that writes files."""
    return rank() == 0


def is_launched_by_rank_zero() -> bool:
    """Whether rank zero started this process, by Lightning, and not torchrun or Slurm."""
    return IS_LAUNCHED


def parent_is_gone() -> bool:
    """Whether the process that launched this one has ended."""
    return os.getppid() != PARENT_PID


def should_report_error() -> bool:
    """Whether this process prints errors: rank zero, or rank one if rank zero has ended."""
    return is_rank_zero() or (rank() == 1 and parent_is_gone())


def launched_world_size() -> int:
    """The number of processes that torchrun or Slurm launched; 1 if neither did."""
    return max([1, *_read_numbers(WORLD_SIZE_VARIABLES)])


def _read_numbers(names: Iterable[str]) -> list[int]:
    """The environment variables that are set; what is no number is not of a launcher."""
    return [int(os.environ[name]) for name in names if os.environ.get(name, "").isdecimal()]
