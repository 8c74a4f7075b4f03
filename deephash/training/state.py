"""Inputs and results of a training."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from deephash.backbones.normalize import NormalizedBackbone
from deephash.core.seeds import derived_seed
from deephash.data.datamodule import HashingDataModule
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split
from deephash.methods.base import Method
from deephash.training.callbacks import Row
from deephash.training.settings import AugmentSettings


@dataclass(frozen=True)
class Model:
    """What is trained.

    Attributes:
        backbone: shared by all phases.
        method: hash head and loss.
        bits: code length.
        identity: plain values that tell which model this is, in its checkpoints.
    """

    backbone: NormalizedBackbone
    method: Method
    bits: int
    identity: dict[str, Any]


@dataclass(frozen=True)
class TrainingData:
    """What is learnt from, and how it is served.

    Attributes:
        image_set: images and labels.
        split: of the image set.
        augment: of the training images.
        eval_batch_size: of validation and feature extraction.
        seed: of the run.
    """

    image_set: ImageSet
    split: Split
    augment: AugmentSettings
    eval_batch_size: int
    seed: int

    def serve(
        self, batch_size: int, *, phase: str = "", features: Tensor | None = None
    ) -> HashingDataModule:
        """A datamodule for one phase, or for the extraction of features."""
        return HashingDataModule(
            self.image_set,
            self.split,
            batch_size=batch_size,
            eval_batch_size=self.eval_batch_size,
            translate=self.augment.translate,
            flip=self.augment.flip,
            cutout=self.augment.cutout,
            seed=derived_seed(self.seed, phase, "batches"),
            features=features,
        )


@dataclass
class History:
    """What the phases of a run left.

    Attributes:
        rows: the curves.
        seconds: of each phase, by name, over all sessions of this run.
        earlier_seconds: part of these that was before the run was stopped.
        cached_seconds: that other runs took for the pre-trainings found in the cache.
    """

    rows: list[Row] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    earlier_seconds: float = 0.0
    cached_seconds: float = 0.0

    def last(self, key: str) -> int:
        """The last "step" or "epoch" of the curves; 0 where there is none."""
        return next((int(row[key]) for row in reversed(self.rows) if key in row), 0)
