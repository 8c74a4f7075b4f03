"""Lightning data module that serves whole batches of an image set."""

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
    """A batch of n images. In training, `labels` are those of the whole batch of all processes."""

    images: Tensor  # uint8 images (n, c, h, w), or features (n, d) that were extracted beforehand
    labels: Tensor  # class indices (m,) or multi-hot (m, classes); m = n except in training
    indices: Tensor  # int64 (n,), into the image set


class HashingDataModule(pl.LightningDataModule):
    """Serves the batches of one training phase, in a seeded order, augmented on the device.

    Args:
        image_set: images and labels.
        split: its split.
        batch_size: of training, over all processes. The batches of an epoch differ in size by one
            image at most, and so do their shards; no image is dropped or repeated.
        eval_batch_size: of all other loaders.
        translate: largest translation in pixels, see `augment`.
        flip: whether to flip images, see `augment`.
        cutout: side of the cut-out square in pixels, see `augment`.
        seed: of the run, for order and augmentation.
        features: float (n, d), a row per image of the set; served unchanged in place of the images.

    Example:
        >>> from deephash.data.datasets.digits import digits
        >>> from deephash.data.protocols import stratified
        >>> image_set = digits()
        >>> data = HashingDataModule(
        ...     image_set,
        ...     stratified(image_set, seed=0, query_fraction=0.1),
        ...     batch_size=100,
        ...     eval_batch_size=500,
        ...     translate=1,
        ...     flip=False,
        ...     cutout=0,
        ...     seed=0,
        ... )
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["images"].shape, batch["labels"].shape
        (torch.Size([96, 1, 16, 16]), torch.Size([96]))
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
        images = image_set.images if features is None else features
        self.dataset = BatchDataset(images, image_set.labels)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.translate = translate
        self.flip = flip
        self.cutout = cutout
        self.seed = seed
        self.serves_images = features is None

    def setup(self, stage: str) -> None:
        """Move images in memory to the device, where batches are then indexed."""
        if self.trainer is not None:
            self.dataset = self.dataset.to(self.trainer.strategy.root_device)

    def train_dataloader(self) -> DataLoader:
        """Batches of the training images, in an order that depends on seed and epoch."""
        batches = ShuffledBatches(self.split.train, self.batch_size, self.seed)
        if self.trainer is not None:
            # When a run is resumed, workers start before Lightning sets the sampler's epoch.
            progress = self.trainer.fit_loop.epoch_progress.current
            batches.set_epoch(progress.processed)  # type: ignore[attr-defined]
        return self._make_loader(ShardedBatchDataset(self.dataset), batches)

    def val_dataloader(self) -> list[DataLoader]:
        """Loaders of the validation images and of the database that they are ranked against."""
        return [self.loader(self.split.validation), self.loader(self.split.validation_database)]

    def loader(self, indices: np.ndarray) -> DataLoader:
        """Batches of this process's shard of the images at `indices`, in order."""
        shard = distributed.local_shard(torch.from_numpy(indices))
        return self._make_loader(self.dataset, list(shard.split(self.eval_batch_size)))

    def _make_loader(self, dataset: Dataset, batches: Iterable[Tensor]) -> DataLoader:
        in_files = isinstance(self.dataset.images, ImageFiles)
        workers = self.dataset.workers
        return DataLoader(
            dataset,
            sampler=batches,
            batch_size=None,
            num_workers=workers,
            # Training workers are kept for the next epoch; others end before the next ones start.
            persistent_workers=workers > 0 and isinstance(batches, ShuffledBatches),
            pin_memory=in_files and torch.cuda.is_available(),
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training images, on the device."""
        if not (self.serves_images and self.trainer is not None and self.trainer.training):
            return batch
        images = augment(
            batch["images"],
            batch["indices"],
            translate=self.translate,
            flip=self.flip,
            cutout=self.cutout,
            seed=self.seed,
            epoch=self.trainer.current_epoch,
        )
        return {**batch, "images": images}


class BatchDataset(Dataset):
    """Data set that is indexed with the indices of a whole batch.

    Args:
        images: uint8 (n, c, h, w), in memory or in files, or features (n, d).
        labels: class indices (n,) or multi-hot (n, classes).
    """

    def __init__(self, images: Tensor | ImageFiles, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    @property
    def workers(self) -> int:
        """Number of loader processes: they pay only where files are decoded in each epoch."""
        if isinstance(self.images, ImageFiles) and self.images.pixels is None:
            return self.images.workers
        return 0

    def to(self, device: torch.device) -> "BatchDataset":
        """Move images and labels to a device; images in files stay where they are."""
        if isinstance(self.images, ImageFiles):
            return self
        return BatchDataset(self.images.to(device), self.labels.to(device))

    def move_indices(self, indices: Tensor) -> Tensor:
        """Move indices to the device of the labels; to a GPU without waiting for its kernels."""
        device = self.labels.device
        if device.type != "cuda" or indices.is_cuda:
            return indices.to(device)
        return indices.pin_memory().to(device, non_blocking=True)

    def __getitem__(self, indices: Tensor) -> Batch:
        indices = self.move_indices(indices)
        return {"images": self.images[indices], "labels": self.labels[indices], "indices": indices}


class ShardedBatchDataset(Dataset):
    """The shard of each batch that this process computes, with the labels of the whole batch."""

    def __init__(self, dataset: BatchDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: Tensor) -> Batch:
        indices = self.dataset.move_indices(indices)
        shard = self.dataset[distributed.local_shard(indices)]
        return {**shard, "labels": self.dataset.labels[indices]}


class ShuffledBatches(Sampler[Tensor]):
    """Batches of indices, shuffled in each epoch by (seed, epoch).

    Args:
        indices: int64 (n,).
        batch_size: largest size of a batch; sizes differ by one at most.
        seed: of the run.
    """

    def __init__(self, indices: np.ndarray, batch_size: int, seed: int) -> None:
        self.indices = torch.from_numpy(indices)
        self.batch_count = -(-len(indices) // batch_size)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls it before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batch_count

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", self.epoch))
        order = torch.randperm(len(self.indices), generator=generator)
        yield from self.indices[order].tensor_split(self.batch_count)
