"""Collectives for distributed training.

Every process holds all images and draws the same batches, and computes its own shard of each batch.
The loss sees the whole batch, so that training is the same with one process and with many.
"""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from deephash.core.ranks import rank

Value = TypeVar("Value")


def world_size() -> int:
    """The number of processes in the process group; 1 if none is initialised."""
    return dist.get_world_size() if dist.is_initialized() else 1


def broadcast_object(value: Value) -> Value:
    """Return rank zero's `value` on every rank."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def local_shard(rows: Tensor) -> Tensor:
    """The contiguous part of `rows` that belongs to this rank.

    If the rows do not divide evenly, the first ranks get one row more.
    """
    return rows.tensor_split(world_size())[rank()] if world_size() > 1 else rows


def local_rows(count: int, device: torch.device) -> Tensor:
    """Indices of this rank's rows in a batch, for a loss that shards its pairs over the ranks.

    The pairs of these rows with all rows, summed over the ranks by `all_reduce_sum`, cover all
    pairs of the batch.

    Args:
        count: number of rows in the whole batch.
        device: device of the returned indices.

    Returns:
        int64 indices, (rows of this rank,).

    Example:
        >>> local_rows(4, torch.device("cpu"))  # a single process has all rows
        tensor([0, 1, 2, 3])
    """
    return local_shard(torch.arange(count, device=device))


def all_reduce_sum(sums: Tensor) -> Tensor:
    """Sum a tensor over all ranks, differentiably."""
    return _AllReduceSum.apply(sums) if world_size() > 1 else sums


def all_gather_with_grad(rows: Tensor, total: int) -> Tensor:
    """Concatenate the shards of all ranks, differentiably.

    The backward pass sums the gradients over the ranks, each of which computes the loss of all
    rows. DDP then averages the gradients of the parameters over the ranks, which gives the gradient
    of a single process.

    Args:
        rows: this rank's shard as returned by `local_shard`, (rows of this rank, ...).
        total: number of rows on all ranks together.

    Returns:
        the rows of all ranks in rank order, (total, ...).
    """
    return _AllGather.apply(rows, total) if world_size() > 1 else rows


class _AllGather(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, total: int) -> Tensor:
        # The collective needs shards of one size, so the shorter ones are padded by one row.
        longest = -(-total // world_size())
        padding = [0, 0] * (rows.ndim - 1) + [0, longest - len(rows)]
        padded = F.pad(rows, padding).contiguous()
        shards = [torch.empty_like(padded) for _ in range(world_size())]
        dist.all_gather(shards, padded)
        num_padded = longest * world_size() - total
        num_full = world_size() - num_padded
        return torch.cat([s if i < num_full else s[: longest - 1] for i, s in enumerate(shards)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return local_shard(total), None


class _AllReduceSum(Function):
    @staticmethod
    def forward(ctx: Any, sums: Tensor) -> Tensor:
        total = sums.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # The loss of every rank depends on the sums of all ranks: their gradients add up.
        (gradient,) = gradients
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
