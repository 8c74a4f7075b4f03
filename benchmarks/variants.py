"""Variants of net, optimiser and method that the ablation tries; none of them is offered."""

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


class LearntStem(ResNetSmall):
    """Its first filters are learnt from a random beginning in place of being computed."""

    def __init__(self, in_chans: int, image_size: tuple[int, int], **settings: Any) -> None:
        super().__init__(in_chans, image_size, **settings)
        filters = nn.Parameter(torch.empty_like(self.filters))
        nn.init.kaiming_normal_(filters)
        del self.filters
        self.filters = filters

    def whiten(self, images: Tensor) -> None:
        """Leave them as they are."""


class Freezing(ResNetSmall):
    """Its stem and first stage no longer learn after `learns` batches.

    Args:
        in_chans: see `ResNetSmall`.
        image_size: see there.
        learns: batches of training.
        settings: see `ResNetSmall`.
    """

    step: Tensor  # how many batches there were: int64 ()

    def __init__(
        self, in_chans: int, image_size: tuple[int, int], *, learns: int, **settings: Any
    ) -> None:
        super().__init__(in_chans, image_size, **settings)
        self.learns = learns
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        """See `ResNetSmall`."""
        self.step += self.training
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.step.item() <= self.learns):
            maps = self.stages[0](F.gelu(F.conv2d(images, self.filters, self.bias)))
        return self.stages[1:](maps).amax(dim=(2, 3))


class Averaged(ResNetSmall):
    """It learns like `ResNetSmall` and is judged with the running average of its weights.

    Args:
        in_chans: see `ResNetSmall`.
        image_size: see there.
        decay: what a batch leaves of the average before it.
        settings: see `ResNetSmall`.
    """

    def __init__(
        self, in_chans: int, image_size: tuple[int, int], *, decay: float, **settings: Any
    ) -> None:
        super().__init__(in_chans, image_size, **settings)
        average = ResNetSmall(in_chans, image_size, **settings)
        average.load_state_dict(self.state_dict())
        self.averaged = list(self.parameters())
        self.average = average.requires_grad_(False)
        self.update = get_ema_multi_avg_fn(decay)

    def forward(self, images: Tensor) -> Tensor:
        """See `ResNetSmall`."""
        if not self.training:
            return self.average(images)
        self.update(list(self.average.parameters()), self.averaged, None)
        for name, buffer in self.average.named_buffers():
            buffer.copy_(self.get_buffer(name))
        return super().forward(images)


def lookahead(parameters: Iterable[nn.Parameter], **settings: Any) -> Lookahead:
    """Muon whose weights go half the way back to those of six steps before (Zhang et al. 2019)."""
    return Lookahead(Muon(parameters, **settings), alpha=0.5, k=6)


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
