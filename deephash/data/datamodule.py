"""Whole batches of an image set, for Lightning."""

from collections.abc import Iterator
from typing import TypedDict

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from deephash import processes
from deephash.data.augment import augmented
from deephash.data.image_set import ImageSet
from deephash.data.protocols import Split
from deephash.seeds import derived_seed


class Batch(TypedDict):
    """What a step sees: n images, and in training the labels of the whole batch."""

    inputs: Tensor  # uint8 images (n, c, h, w), or features (n, d) extracted beforehand
    labels: Tensor  # of these images; in training of those of all processes
    indices: Tensor  # int64 (n,), into the image set


class HashingData(pl.LightningDataModule):
    """Serves one phase's batches: whole uint8 batches in a seeded order, augmented on the device.

    Args:
        image_set: images and labels.
        split: which of them are what.
        batch_size: of training, over all processes. Batches of an epoch differ by one image at
            most, and so do the processes' shares of one; none is dropped or repeated.
        eval_batch_size: of everything else.
        translate: pixels, see `augmented`.
        flip: see there.
        cutout: see there.
        seed: fixes order and augmentation.
        features: float (n, d), one row for each image of the set; given, they are served in the
            images' place, as they are.
    """

    def __init__(
        self,
        image_set: ImageSet,
        split: Split,
        *,
        batch_size: int,
        eval_batch_size: int,
        translate: int,
        flip: bool,
        cutout: int,
        seed: int,
        features: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.split = split
        self.source = InMemory(image_set.images if features is None else features, image_set.labels)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.translate = translate
        self.flip = flip
        self.cutout = cutout
        self.seed = seed
        self.serves_images = features is None

    def setup(self, stage: str) -> None:
        """Move the images to the device, where the batches are then cut out of them."""
        if self.trainer is not None:
            self.source = self.source.on(self.trainer.strategy.root_device)

    def train_dataloader(self) -> DataLoader:
        """Batches of the training images, in an order that depends on seed and epoch."""
        batches = ShuffledBatches(self.split.train, self.batch_size, self.seed)
        return DataLoader(Shares(self.source), sampler=batches, batch_size=None)

    def val_dataloader(self) -> list[DataLoader]:
        """The validation images, then the database that they are ranked against."""
        return [self.loader(self.split.validation), self.loader(self.split.validation_database)]

    def loader(self, indices: np.ndarray) -> DataLoader:
        """Batches of this process's share of these images, in order."""
        batches = list(processes.share(torch.from_numpy(indices)).split(self.eval_batch_size))
        return DataLoader(self.source, sampler=batches, batch_size=None)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training images, on the device."""
        if not (self.serves_images and self.trainer is not None and self.trainer.training):
            return batch
        images = augmented(
            batch["inputs"],
            batch["indices"],
            translate=self.translate,
            flip=self.flip,
            cutout=self.cutout,
            seed=self.seed,
            epoch=self.trainer.current_epoch,
        )
        return {**batch, "inputs": images}


class InMemory(Dataset):
    """A data set that is asked for a whole batch at once."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs = inputs
        self.labels = labels

    def on(self, device: torch.device) -> "InMemory":
        """The same in that device's memory."""
        return InMemory(self.inputs.to(device), self.labels.to(device))

    def __getitem__(self, indices: Tensor) -> Batch:
        indices = indices.to(self.inputs.device)
        return {"inputs": self.inputs[indices], "labels": self.labels[indices], "indices": indices}


class Shares(Dataset):
    """Of each batch this process's share, and the labels of all of it."""

    def __init__(self, source: InMemory) -> None:
        self.source = source

    def __getitem__(self, indices: Tensor) -> Batch:
        labels = self.source.labels[indices.to(self.source.labels.device)]
        return {**self.source[processes.share(indices)], "labels": labels}


class ShuffledBatches(Sampler[Tensor]):
    """Batches of indices, shuffled anew each epoch by (seed, epoch)."""

    def __init__(self, indices: np.ndarray, batch_size: int, seed: int) -> None:
        self.indices = torch.from_numpy(indices)
        self.count = -(-len(indices) // batch_size)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", self.epoch))
        order = torch.randperm(len(self.indices), generator=generator)
        yield from self.indices[order].tensor_split(self.count)
