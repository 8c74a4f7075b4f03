"""Features of images, extracted on the trainer's devices."""

from collections.abc import Callable
from typing import cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from deephash.core.distributed import all_gather_with_grad
from deephash.data.datamodule import HashingDataModule
from deephash.training.modules import FeatureExtractor


def extract_features(
    backbone: nn.Module,
    data: HashingDataModule,
    indices: np.ndarray,
    make_trainer: Callable[..., pl.Trainer],
) -> Tensor:
    """The features of some images, not augmented, each computed on one process.

    Args:
        backbone: uint8 images (n, c, h, w) to features (n, num_features).
        data: serves the images.
        indices: of the images.
        make_trainer: makes a Lightning trainer, see `trainer_factory`.

    Returns:
        float32 (len(indices), num_features), on the CPU of every process.
    """
    trainer = make_trainer(callbacks=[], logger=False, max_epochs=1)
    batches = trainer.predict(FeatureExtractor(backbone), data.loader(indices))
    local = torch.cat(cast(list[Tensor], batches)).to(trainer.strategy.root_device)
    return all_gather_with_grad(local, len(indices)).cpu()
