"""Variants of backbone, optimizer and method for the ablation; none is part of the package."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import Lookahead, Muon
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from deephash.backbones import ResNetSmall
from deephash.methods.base import HashBatch
from deephash.methods.joint import Joint


class LearnedStem(ResNetSmall):
    """`ResNetSmall` that learns the filters of its stem from a random start."""

    def __init__(self, in_chans: int, image_size: tuple[int, int], **settings: Any) -> None:
        super().__init__(in_chans, image_size, **settings)
        filters = nn.Parameter(torch.empty_like(self.filters))
        nn.init.kaiming_normal_(filters)
        del self.filters
        self.filters = filters

    def whiten(self, images: Tensor) -> None:
        """Keep the random filters."""


class Freezing(ResNetSmall):
    """`ResNetSmall` whose stem and first stage are frozen after some batches of training.

    Args:
        in_chans: channels of the images.
        image_size: height and width of the images.
        trained_batches: number of batches that stem and first stage are trained for.
        settings: of `ResNetSmall`.
    """

    step: Tensor  # number of training batches so far, int64 ()

    def __init__(
        self,
        in_chans: int,
        image_size: tuple[int, int],
        *,
        trained_batches: int,
        **settings: Any,
    ) -> None:
        super().__init__(in_chans, image_size, **settings)
        self.trained_batches = trained_batches
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, c, h, w) to features (n, num_features)."""
        self.step += self.training
        is_trained = torch.is_grad_enabled() and self.step.item() <= self.trained_batches
        with torch.set_grad_enabled(is_trained):
            maps = self.stages[0](F.gelu(F.conv2d(images, self.filters, self.bias)))
        return self.stages[1:](maps).amax(dim=(2, 3))


class Averaged(ResNetSmall):
    """`ResNetSmall` that is evaluated with the running average of its weights.

    Args:
        in_chans: channels of the images.
        image_size: height and width of the images.
        decay: factor of the average at each batch.
        settings: of `ResNetSmall`.
    """

    def __init__(
        self, in_chans: int, image_size: tuple[int, int], *, decay: float, **settings: Any
    ) -> None:
        super().__init__(in_chans, image_size, **settings)
        average = ResNetSmall(in_chans, image_size, **settings)
        average.load_state_dict(self.state_dict())
        self.own_parameters = list(self.parameters())
        self.average = average.requires_grad_(False)
        self.update = get_ema_multi_avg_fn(decay)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, c, h, w) to features (n, num_features)."""
        if not self.training:
            return self.average(images)
        self.update(list(self.average.parameters()), self.own_parameters, None)
        for name, buffer in self.average.named_buffers():
            buffer.copy_(self.get_buffer(name))
        return super().forward(images)


def lookahead(parameters: Iterable[nn.Parameter], **settings: Any) -> Lookahead:
    """Muon with lookahead: every six steps, half-way back to the weights of six steps before
    (Zhang et al. 2019, "Lookahead Optimizer: k steps forward, 1 step back").
    """
    return Lookahead(Muon(parameters, **settings), alpha=0.5, k=6)


class BatchNormalized(Joint):
    """`Joint` with batch norm of the logits: each bit is balanced over the batch, at unit scale."""

    def __init__(self, num_features: int, bits: int, num_classes: int, **settings: Any) -> None:
        super().__init__(num_features, bits, num_classes, **settings)
        self.norm = nn.BatchNorm1d(bits, affine=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, num_features) to logits (n, bits)."""
        return self.norm(super().forward(features))


class RisingTau(Joint):
    """`Joint` whose tau rises linearly from `first_tau` to `tau` over the batches of the training.

    Args:
        num_features: width of the features.
        bits: code length.
        num_classes: unused; every method takes it.
        first_tau: tau of the first batch.
        steps: number of batches of all phases that train on the loss.
        settings: of `Joint`.
    """

    step: Tensor  # number of training batches so far, int64 ()

    def __init__(
        self,
        num_features: int,
        bits: int,
        num_classes: int,
        *,
        first_tau: float,
        steps: int,
        **settings: Any,
    ) -> None:
        super().__init__(num_features, bits, num_classes, **settings)
        self.first_tau, self.last_tau = first_tau, self.tau
        self.steps = steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def loss(self, batch: HashBatch) -> dict[str, Tensor]:
        """The loss with the tau of this batch."""
        progress = min(1.0, self.step.item() / self.steps)
        self.tau = self.first_tau + (self.last_tau - self.first_tau) * progress
        self.step += 1
        return super().loss(batch)
