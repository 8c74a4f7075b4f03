"""The contract of a hashing method, and the one definition of similarity."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn


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
