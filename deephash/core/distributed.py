"""Collectives of distributed training.

Every process holds all images and draws the same batches; of each batch it computes its shard. The
loss sees the whole batch, so one process and many are the same training.
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
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def broadcast_object(value: Value) -> Value:
    """The value of rank zero, on every rank."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def local_shard(rows: Tensor) -> Tensor:
    """This rank's contiguous part of `rows`; where they do not divide evenly, the first ranks hold
    one row more.
    """
    return rows.tensor_split(world_size())[rank()] if world_size() > 1 else rows


def local_rows(count: int, device: torch.device) -> Tensor:
    """Indices of this rank's rows in a batch of `count`, for a loss that shards its pairs.

    The pairs of these rows with all rows, summed by `all_reduce_sum`, are all pairs.
    """
    return local_shard(torch.arange(count, device=device))


def all_reduce_sum(sums: Tensor) -> Tensor:
    """The sum of `sums` over all ranks; differentiable."""
    return _AllReduceSum.apply(sums) if world_size() > 1 else sums


def all_gather_with_grad(rows: Tensor, total: int) -> Tensor:
    """All `total` rows, in rank order, from the shard that each rank holds (see `local_shard`).

    Differentiable: the backward pass sums the gradients over the ranks, each of which computes the
    loss of all rows. Averaged over the ranks, as DDP does with the gradients of the parameters,
    that is the gradient of a single process.
    """
    return _AllGather.apply(rows, total) if world_size() > 1 else rows


class _AllGather(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, total: int) -> Tensor:
        longest = -(-total // world_size())
        padding = [0, 0] * (rows.ndim - 1) + [0, longest - len(rows)]
        padded = F.pad(rows, padding).contiguous()
        shards = [torch.empty_like(padded) for _ in range(world_size())]
        dist.all_gather(shards, padded)
        shorter = longest * world_size() - total  # so many ranks hold one row less
        full = world_size() - shorter
        return torch.cat([s if i < full else s[: longest - 1] for i, s in enumerate(shards)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return local_shard(summed), None


class _AllReduceSum(Function):
    """The loss of every rank depends on all sums, so the backward pass sums the gradients too."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor) -> Tensor:
        total = sums.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
