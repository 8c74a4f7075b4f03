"""The contract of a hashing method, and the one definition of similarity."""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function


class HashBatch(NamedTuple):
    """What a method's loss sees: the whole global batch, gathered over processes."""

    logits: Tensor  # (n, bits), float32
    labels: Tensor  # (n,) class indices or (n, classes) multi-hot


class Method(nn.Module):
    """A hash head and its loss.

    `forward` maps features (n, num_features) to logits (n, bits), whose signs are the code.
    A method is made from `num_features`, `bits` and `num_classes`, and keyword settings of its own
    that stand in `conf/method/`.
    """

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, bits) of features (n, num_features)."""

    @abstractmethod
    def loss(self, batch: HashBatch) -> dict[str, Tensor]:
        """Named scalar terms; the one called "loss" is minimised."""


def shares_label(labels: Tensor, others: Tensor) -> Tensor:
    """Which pairs share a label: bool (n, m), the one definition of similarity.

    Args:
        labels: class indices (n,) or multi-hot (n, classes).
        others: likewise, (m,) or (m, classes).
    """
    if labels.ndim == 1:
        return labels[:, None] == others[None, :]
    return labels.to(torch.float32) @ others.to(torch.float32).T > 0


def own_rows(count: int, device: torch.device) -> Tensor:
    """Which rows of a batch of `count` are this process's, where a loss shares its pairs out.

    The pairs of these rows with all, added up by `over_processes`, are all pairs; what follows from
    the sums is the same on every process, as a loss must be.
    """
    rows = torch.arange(count, device=device)
    if not dist.is_initialized():
        return rows
    return rows.tensor_split(dist.get_world_size())[dist.get_rank()]


def over_processes(sums: Tensor) -> Tensor:
    """The sum of `sums` over the processes; differentiable."""
    return _Summed.apply(sums) if dist.is_initialized() else sums


class _Summed(Function):
    """Every process's loss holds all sums, so the gradients of all come back to each."""

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
