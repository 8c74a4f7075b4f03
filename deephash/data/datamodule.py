"""Whole batches of an image set, for Lightning."""

from collections.abc import Iterable, Iterator
from typing import TypedDict

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from deephash.core import distributed
from deephash.core.seeds import derived_seed
from deephash.data.augment import Flip, augment
from deephash.data.files.decoded_cache import ImageFiles
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split


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
        flip: Flip,
        cutout: int,
        seed: int,
        features: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.split = split
        self.source = Source(image_set.images if features is None else features, image_set.labels)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.translate = translate
        self.flip = flip
        self.cutout = cutout
        self.seed = seed
        self.serves_images = features is None

    def setup(self, stage: str) -> None:
        """Move what is in memory to the device, where the batches are then cut out of it."""
        if self.trainer is not None:
            self.source = self.source.on(self.trainer.strategy.root_device)

    def train_dataloader(self) -> DataLoader:
        """Batches of the training images, in an order that depends on seed and epoch."""
        batches = ShuffledBatches(self.split.train, self.batch_size, self.seed)
        if self.trainer is not None:  # where a run goes on, workers begin before Lightning says it
            progress = self.trainer.fit_loop.epoch_progress.current
            batches.set_epoch(progress.processed)  # type: ignore[attr-defined]
        return self._loader(Shares(self.source), batches)

    def val_dataloader(self) -> list[DataLoader]:
        """The validation images, then the database that they are ranked against."""
        return [self.loader(self.split.validation), self.loader(self.split.validation_database)]

    def loader(self, indices: np.ndarray) -> DataLoader:
        """Batches of this process's share of these images, in order."""
        batches = list(
            distributed.local_shard(torch.from_numpy(indices)).split(self.eval_batch_size)
        )
        return self._loader(self.source, batches)

    def _loader(self, source: Dataset, batches: Iterable[Tensor]) -> DataLoader:
        in_files = isinstance(self.source.inputs, ImageFiles)
        return DataLoader(
            source,
            sampler=batches,
            batch_size=None,
            num_workers=self.source.workers,
            # Those of training stay for the next epoch; others are gone before the next begin.
            persistent_workers=self.source.workers > 0 and isinstance(batches, ShuffledBatches),
            pin_memory=in_files and torch.cuda.is_available(),
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training images, on the device."""
        if not (self.serves_images and self.trainer is not None and self.trainer.training):
            return batch
        images = augment(
            batch["inputs"],
            batch["indices"],
            translate=self.translate,
            flip=self.flip,
            cutout=self.cutout,
            seed=self.seed,
            epoch=self.trainer.current_epoch,
        )
        return {**batch, "inputs": images}


class Source(Dataset):
    """A data set that is asked for a whole batch at once."""

    def __init__(self, inputs: Tensor | ImageFiles, labels: Tensor) -> None:
        self.inputs = inputs
        self.labels = labels

    @property
    def workers(self) -> int:
        """Processes that make batches: where files are decoded; else they would only copy."""
        if isinstance(self.inputs, ImageFiles) and self.inputs.pixels is None:
            return self.inputs.workers
        return 0

    def on(self, device: torch.device) -> "Source":
        """The same in that device's memory; files stay where they are."""
        if isinstance(self.inputs, ImageFiles):
            return self
        return Source(self.inputs.to(device), self.labels.to(device))

    def moved(self, indices: Tensor) -> Tensor:
        """Indices to where the labels lie; to a GPU without waiting for what it computes."""
        device = self.labels.device
        if device.type != "cuda" or indices.is_cuda:
            return indices.to(device)
        return indices.pin_memory().to(device, non_blocking=True)

    def __getitem__(self, indices: Tensor) -> Batch:
        indices = self.moved(indices)
        return {"inputs": self.inputs[indices], "labels": self.labels[indices], "indices": indices}


class Shares(Dataset):
    """Of each batch this process's share, and the labels of all of it."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, indices: Tensor) -> Batch:
        indices = self.source.moved(indices)
        batch = self.source[distributed.local_shard(indices)]
        return {**batch, "labels": self.source.labels[indices]}


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
