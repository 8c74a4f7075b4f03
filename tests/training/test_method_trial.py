"""A method is tried before the training, on a copy: nothing that the training uses changes."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deephash.core.errors import UserError
from deephash.methods.base import HashBatch
from deephash.methods.joint import Joint
from deephash.training.method_trial import training_device, try_method

LABELS = torch.arange(20) % 4
CPU = torch.device("cpu")


class Counting(Joint):
    """Draws from all generators, and counts its losses in a buffer and an attribute."""

    def __init__(self) -> None:
        super().__init__(6, 8, 4, surrogate="bilinear", tau=2.0, balanced=True)
        self.register_buffer("losses", torch.zeros(()))
        self.norm = nn.BatchNorm1d(6)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(self.norm(features))

    def loss(self, batch: HashBatch) -> dict[str, Tensor]:
        self.losses += 1
        self.seen.append((*batch.logits.shape, *batch.labels.shape))
        noise = torch.rand(()) + random.random() + np.random.rand()
        return {"loss": super().loss(batch)["loss"] * float(noise)}


class WithoutLoss(Counting):
    def loss(self, batch: HashBatch) -> dict[str, Tensor]:
        return {"los": batch.logits.sum()}


class Detached(Counting):
    def loss(self, batch: HashBatch) -> dict[str, Tensor]:
        return {"loss": batch.logits.detach().sum()}


class Undifferentiable(Counting):
    def loss(self, batch: HashBatch) -> dict[str, Tensor]:
        root = batch.logits.sum().exp()
        loss = root * 2 + root**2
        root += 1  # in place, so that the backward pass fails
        return {"loss": loss}


class Uncopyable(WithoutLoss):
    def __deepcopy__(self, memo: object) -> None:
        raise TypeError("it holds a lock")


def test_a_trial_changes_nothing() -> None:
    method = Counting()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    try_method(method, 6, 8, LABELS, CPU)
    assert method.seen == []
    assert method.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (WithoutLoss, UserError, r"WithoutLoss.loss returns the terms \['los'\]"),
        (Detached, UserError, "Detached.loss: 'loss' has no gradient"),
        (Undifferentiable, RuntimeError, "modified by an inplace operation"),
    ],
)
def test_a_fault_is_found(kind: type[Counting], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        try_method(kind(), 6, 8, LABELS, CPU)


def test_a_method_that_cannot_be_copied_is_not_tried() -> None:
    try_method(Uncopyable(), 6, 8, LABELS, CPU)


def test_the_device_is_that_of_the_trainer() -> None:
    node = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "devices": 1}
    assert training_device(node) == CPU
