"""Which process this is. Free of torch: the command line asks before torch is imported."""

import os
import sys

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # of torchrun, Lightning, Slurm
PARENT = os.getppid()  # of a process that Lightning launched: rank zero


def rank() -> int:
    """The global rank of this process, also before the process group is initialised."""
    torch_distributed = sys.modules.get("torch.distributed")
    if torch_distributed is not None and torch_distributed.is_initialized():
        return torch_distributed.get_rank()
    return next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)


def is_rank_zero() -> bool:
    """Whether this is the process that writes files."""
    return rank() == 0


def parent_is_gone() -> bool:
    """Whether the process that launched this one has ended."""
    return os.getppid() != PARENT


def should_report_error() -> bool:
    """Whether this process prints errors: rank zero, or rank one where rank zero is gone."""
    return is_rank_zero() or (rank() == 1 and parent_is_gone())


def launched_world_size() -> int:
    """The number of processes that torchrun or Slurm launched; 1 where neither did."""
    names = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
    return max(int(os.environ.get(name, 1)) for name in names)
