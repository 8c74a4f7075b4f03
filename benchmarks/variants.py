"""Variants of the method that the ablation tries; none of them is offered."""

from typing import Any

import torch
from torch import Tensor, nn

from deephash.methods.base import HashBatch
from deephash.methods.joint import Joint


class Normed(Joint):
    """Batch norm before the sign: each bit is balanced over the batch, at unit scale."""

    def __init__(self, num_features: int, bits: int, num_classes: int, **settings: Any) -> None:
        super().__init__(num_features, bits, num_classes, **settings)
        self.norm = nn.BatchNorm1d(bits, affine=False)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, bits) of features (n, num_features)."""
        return self.norm(super().forward(features))


class Rising(Joint):
    """tau rises linearly from `first` to `tau` over `steps` batches.

    Args:
        num_features: see `Joint`.
        bits: see there.
        num_classes: see there.
        first: tau of the first batch.
        steps: batches of all phases that train on the loss.
        settings: see `Joint`.
    """

    step: Tensor  # how many batches there were: int64 ()

    def __init__(
        self,
        num_features: int,
        bits: int,
        num_classes: int,
        *,
        first: float,
        steps: int,
        **settings: Any,
    ) -> None:
        super().__init__(num_features, bits, num_classes, **settings)
        self.first, self.last = first, self.tau
        self.steps = steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def loss(self, batch: HashBatch) -> dict[str, Tensor]:
        """The loss at the tau of this batch."""
        done = min(1.0, self.step.item() / self.steps)
        self.tau = self.first + (self.last - self.first) * done
        self.step += 1
        return super().loss(batch)
