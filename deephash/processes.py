"""The processes that train a run together: started, told apart, gathered from.

Every process holds all images and draws the same batches; of each batch it computes its share. The
loss sees the whole batch, so one process and many are the same training, but for batch norm where
its statistics are not taken over all of them.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist
import torch.nn.functional as F
from lightning_fabric import Fabric
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, empty_like
from torch import cat as concatenated
from torch.autograd import Function

from deephash.errors import UserError

Value = TypeVar("Value")

PARENT = os.getppid()  # for a process that Lightning started, the first
GRACE = 60  # seconds that this process has to end by itself after another, and to say why
LOST = "closed by peer|reset by peer|Broken pipe|Connection refused|[Tt]imed out|NCCL"


def is_first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def speaks() -> bool:
    """Whether this is the process that tells of errors: the first, or where it is gone the next."""
    return is_first() or (rank() == 1 and os.getppid() != PARENT)


def rank() -> int:
    """Which process this is, counted over all machines."""
    return rank_zero_only.rank  # type: ignore[attr-defined]  # lightning sets it


def count() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def started_by_another() -> int:
    """How many processes torchrun or Slurm started; 1 where neither did."""
    names = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
    return max(int(os.environ.get(name, 1)) for name in names)


@contextmanager
def together(trainer: dict[str, Any], wanted: int, folder: Path) -> Iterator[None]:
    """Start the other processes of this machine, unless torchrun or Slurm did, and join them.

    The others run the same command, and print nothing. None outlives this one.

    Args:
        trainer: settings of Lightning's Trainer.
        wanted: how many processes that makes, on all machines.
        folder: of the run, to go on with when a process is lost.

    Raises:
        UserError: one of the processes is lost.
    """
    if wanted == 1:
        yield
        return
    where = ("accelerator", "devices", "num_nodes", "strategy")
    fabric = Fabric(**{key: trainer[key] for key in where if key in trainer})
    fabric.launch()
    children = _taken_over(fabric)
    ended = threading.Event()
    threading.Thread(target=_watch, args=(children, ended, folder), daemon=True).start()
    try:
        with (
            open(os.devnull, "w") as nowhere,
            redirect_stdout(sys.stdout if is_first() else nowhere),
        ):
            yield
        for child in children:
            child.wait()
    except RuntimeError as error:
        if re.search(LOST, str(error)):
            _wait_for_the_end_of_the_first()
            raise UserError(_lost(folder)) from None
        raise
    finally:
        ended.set()
        _end(children)


def _taken_over(fabric: Fabric) -> list[subprocess.Popen[bytes]]:
    """The processes that Lightning started, out of the sight of its observer.

    That kills this process as soon as it sees one of them ended, also while this one says why.
    """
    observed = getattr(fabric.strategy.launcher, "procs", [])
    children = list(observed)
    observed.clear()
    return children


def _watch(children: list[subprocess.Popen[bytes]], ended: threading.Event, folder: Path) -> None:
    """End this process where it waits for one that is lost; between GPUs nothing else tells it."""
    while not ended.wait(timeout=1):
        if any(child.poll() for child in children) and not ended.wait(timeout=GRACE):
            print(f"error: {_lost(folder)}", file=sys.stderr, flush=True)
            _end(children)
            os._exit(2)


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:  # they write nothing, so nothing is left half-written
        child.kill()
        child.wait()


def _wait_for_the_end_of_the_first() -> None:
    """Until it is known who `speaks`: the connections of a killed process close before it is gone.

    Where the first lives, it ends this process meanwhile.
    """
    until = time.monotonic() + 5
    while not is_first() and os.getppid() == PARENT and time.monotonic() < until:
        time.sleep(0.05)


def _lost(folder: Path) -> str:
    return (
        "a process of this run was lost, and the others stopped. "
        f"Go on with: python train.py resume={folder}"
    )


def agreed(value: Value) -> Value:
    """The first process's value, on all."""
    values = [value]
    if count() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def share(rows: Tensor) -> Tensor:
    """The rows that are this process's; where they do not divide, the first have one more."""
    return rows.tensor_split(count())[rank()] if count() > 1 else rows


def gathered(rows: Tensor, total: int) -> Tensor:
    """All `total` rows, in order, from each process's share.

    Differentiable: the gradient of a loss that each process computes of all rows, summed over the
    processes. Their mean, which DDP makes of the parameters' gradients, is that of one process.
    """
    return _Gathered.apply(rows, total) if count() > 1 else rows


class _Gathered(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, total: int) -> Tensor:
        longest = -(-total // count())
        padding = [0, 0] * (rows.ndim - 1) + [0, longest - len(rows)]
        padded = F.pad(rows, padding).contiguous()
        parts = [empty_like(padded) for _ in range(count())]
        dist.all_gather(parts, padded)
        left_out = longest * count() - total  # so many processes have one row less
        full = count() - left_out
        return concatenated([p if i < full else p[: longest - 1] for i, p in enumerate(parts)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return share(summed), None
