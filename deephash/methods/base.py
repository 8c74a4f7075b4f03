"""The interface of a hashing method, and the definition of similarity."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn


class HashBatch(NamedTuple):
    """The input of a method's loss: the whole global batch, gathered over all processes.

    Attributes:
        logits: float32 (n, bits).
        labels: class indices (n,), or multi-hot (n, classes).
    """

    logits: Tensor
    labels: Tensor


class Method(nn.Module):
    """Base class of hashing methods: a hash head and its loss.

    A subclass is created with the arguments `num_features`, `bits` and `num_classes`, and with the
    keyword settings that are listed in its file in `conf/method/`.

    Example:
        >>> class SquaredInnerProduct(Method):
        ...     def __init__(self, num_features, bits, num_classes, *, margin):
        ...         super().__init__()
        ...         self.head = nn.Linear(num_features, bits)
        ...         self.margin = margin
        ...
        ...     def forward(self, features):
        ...         return self.head(features)
        ...
        ...     def loss(self, batch):
        ...         codes = torch.tanh(batch.logits)
        ...         target = shares_label(batch.labels, batch.labels) * 2.0 - 1
        ...         return {"loss": (codes @ codes.T - self.margin * target).square().mean()}
        >>> method = SquaredInnerProduct(num_features=4, bits=8, num_classes=2, margin=6.0)
        >>> logits = method(torch.randn(3, 4))
        >>> sorted(method.loss(HashBatch(logits, torch.tensor([0, 1, 1]))))
        ['loss']
    """

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, num_features) to logits (n, bits), whose signs are the codes."""

    @abstractmethod
    def loss(self, batch: HashBatch) -> dict[str, Tensor]:
        """Compute scalar terms by name; the one named "loss" is minimised."""


def shares_label(labels: Tensor, others: Tensor) -> Tensor:
    """Find the pairs of items that share a label: the definition of similarity in all methods.

    Args:
        labels: class indices (n,), or multi-hot (n, classes).
        others: class indices (m,), or multi-hot (m, classes), of the same kind as `labels`.

    Returns:
        bool (n, m).

    Example:
        >>> shares_label(torch.tensor([0, 1]), torch.tensor([1, 1, 0]))
        tensor([[False, False,  True],
                [ True,  True, False]])
    """
    if labels.ndim == 1:
        return labels[:, None] == others[None, :]
    return labels.to(torch.float32) @ others.to(torch.float32).T > 0
