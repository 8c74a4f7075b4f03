"""A method is tried once, so that its faults are known before anything is trained."""

import copy
from typing import Any

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from deephash.core.instantiate import build
from deephash.data.datamodule import Batch
from deephash.methods.base import Method
from deephash.training.modules import HashingModule


def try_method(
    method: Method, num_features: int, bits: int, labels: Tensor, device: torch.device
) -> None:
    """Take the loss of a copy of a method, on random features, and its gradient.

    Nothing that the training draws or starts from is changed.

    Args:
        method: as it is before the training.
        num_features: of the backbone.
        bits: code length.
        labels: of the images of a batch.
        device: to try it on.

    Raises:
        UserError: the method returns something else than it should. Other errors of its own leave
            as they are.
    """
    try:
        method = copy.deepcopy(method)
    except Exception:  # it holds what cannot be copied, so its first step will tell
        return
    module = HashingModule(
        nn.Identity(),
        method.to(device),
        head_only=True,
        bits=bits,
        make_optimizer=lambda parameters: torch.optim.SGD(parameters.values()),
        schedule=lambda step, total_steps: 1.0,
        identity={},
    )
    with isolate_rng(include_cuda=False):  # each phase seeds all generators
        features = torch.randn(len(labels), num_features).to(device)
        indices = torch.arange(len(labels))
        batch: Batch = {"images": features, "labels": labels.to(device), "indices": indices}
        module.training_step(batch, 0)["loss"].backward()


def training_device(trainer_config: dict[str, Any]) -> torch.device:
    """The device on which this process will train.

    Args:
        trainer_config: resolved settings of Lightning's Trainer.
    """
    trainer = build("trainer", trainer_config, logger=False, enable_checkpointing=False)
    return trainer.strategy.root_device
