"""Trainings of a second: sixty made images, a backbone that records what it is shown."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from deephash.backbones.normalize import NormalizedBackbone
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split
from deephash.methods.joint import Joint
from deephash.training.optimization import PhaseOptimization
from deephash.training.phases import PhaseRunner
from deephash.training.pretraining import PretrainingCache
from deephash.training.settings import AugmentSettings, ClassifyPhase, HashPhase, PhaseSettings
from deephash.training.state import Model, TrainingData
from deephash.training.trainer import trainer_factory

BITS = 6
CPU = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "devices": 1}
NO_AUGMENT = AugmentSettings(translate=0, flip=False, cutout=0)
IDENTITY = {"dataset": "made", "method": "joint", "bits": BITS}


def make_image_set() -> ImageSet:
    """Sixty different images of 6 x 7 pixels, of three classes in turn."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    images = torch.randint(0, 100, (60, 1, 6, 7), generator=generator, dtype=torch.uint8)
    images[:, 0, :, :3] += labels[:, None, None].to(torch.uint8) * 60
    return ImageSet(
        name="made",
        images=images,
        labels=labels,
        ids=np.array([f"made/{i}" for i in range(60)]),
        classes=("a", "b", "c"),
        is_test=np.zeros(60, dtype=bool),
    )


def make_split() -> Split:
    """Ten queries; of the others, 32 are trained on and 18 are for validation."""
    others = np.random.default_rng(0).permutation(np.arange(10, 60))
    train = np.sort(others[:32])
    return Split(
        train=train,
        query=np.arange(10),
        database=np.arange(10, 60),
        validation=np.sort(others[32:]),
        validation_database=train[::2].copy(),
    )


def make_data(augment: AugmentSettings = NO_AUGMENT, seed: int = 0) -> TrainingData:
    return TrainingData(make_image_set(), make_split(), augment, eval_batch_size=7, seed=seed)


class RecordingNet(nn.Module):
    """A small net with batch norm that records its images, and whether it was in training mode."""

    num_features = 5

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(42, 5)
        self.norm = nn.BatchNorm1d(5)
        self.calls: list[tuple[bool, Tensor]] = []
        self.training_outputs: list[Tensor] = []  # of the linear layer, in training mode

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append((self.training, images.detach().clone()))
        outputs = self.linear((images.flatten(1) - 80) / 50)
        if self.training:
            self.training_outputs.append(outputs.detach().clone())
        return torch.tanh(self.norm(outputs))

    def images(self, *, training: bool) -> list[tuple[int, ...]]:
        """The pixels of each image that it was shown in one of its two modes."""
        shown = [images for mode, images in self.calls if mode == training]
        return pixels(torch.cat(shown)) if shown else []


def pixels(images: Tensor) -> list[tuple[int, ...]]:
    return [tuple(row) for row in images.flatten(1).long().tolist()]


class BatchRecorder(Callback):
    """Records the indices of the batches of each epoch, and the optimizer of each step."""

    def __init__(self) -> None:
        self.epochs: list[list[list[int]]] = []
        self.groups: list[list[dict[str, Any]]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs.append([])

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.epochs[-1].append(batch["indices"].tolist())
        names = {id(parameter): name for name, parameter in pl_module.named_parameters()}
        (optimizer,) = trainer.optimizers
        self.groups.append(
            [
                {**group, "params": [names[id(parameter)] for parameter in group["params"]]}
                for group in optimizer.param_groups
            ]
        )


def make_phase(objective: str = "classify", trains: str = "all", **settings: Any) -> PhaseSettings:
    """Two epochs of four steps by SGD at a constant rate."""
    shared = {
        "objective": objective,
        "trains": trains,
        "epochs": 2,
        "batch_size": 8,
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.05},
        "scheduler": {"_target_": "deephash.training.schedules.constant", "warmup": 0.0},
        "param_groups": {},
    }
    if objective == "classify":
        return ClassifyPhase(**{**shared, "label_smoothing": 0.1, **settings})
    return HashPhase(**{**shared, **settings})


def all_phases() -> dict[str, PhaseSettings]:
    return {
        "pretrain": make_phase(),
        "init": make_phase("hash", trains="head"),
        "hash": make_phase("hash"),
    }


class TinyRun:
    """A PhaseRunner of a model of its own.

    Attributes:
        net: the recording net inside the backbone.
        model: its backbone, method and identity.
        recorders: of the batches, by phase.
        runner: made anew by each call of `run`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        data: TrainingData | None = None,
        cache: Path | None = None,
        weight_seed: int = 0,
    ) -> None:
        self.folder = folder
        self.data = data or make_data()
        self.cache = PretrainingCache(cache or folder / "cache", {"seed": self.data.seed})
        torch.manual_seed(weight_seed)
        self.net = RecordingNet()
        backbone = NormalizedBackbone(self.net, torch.zeros(1), torch.ones(1))
        method = Joint(5, bits=BITS, num_classes=3, surrogate="bilinear", tau=2.0, balanced=True)
        # In float64 from the start, so that weights are compared bit for bit.
        self.model = Model(backbone.double(), method.double(), BITS, dict(IDENTITY))
        self.recorders: list[BatchRecorder] = []
        self.checkpoints = folder / "checkpoints"

    def run(self, phases: Mapping[str, PhaseSettings], **optimizations: Any) -> PhaseRunner:
        """Take the model through the phases; `self.recorders` has one recorder for each."""
        made = {
            name: PhaseOptimization(f"training.{name}", phase, torch.float32)
            for name, phase in phases.items()
        }
        runner = PhaseRunner(
            self.model,
            self.data,
            optimizations={**made, **optimizations},
            make_trainer=self._trainer_factory(),
            precision="64-true",
            loggers=[],
            checkpoint_dir=self.checkpoints,
            cache=self.cache,
            is_resumed=False,
            show_progress=False,
        )
        runner.run(phases)
        return runner

    def _trainer_factory(self) -> Callable[..., pl.Trainer]:
        make = trainer_factory({**CPU, "precision": "64-true"}, self.folder)

        def make_trainer(*, callbacks: list[Callback], **kwargs: Any) -> pl.Trainer:
            if callbacks:  # a training, not an extraction of features
                self.recorders.append(BatchRecorder())
                callbacks = [*callbacks, self.recorders[-1]]
            return make(callbacks=callbacks, **kwargs)

        return make_trainer

    def weights(self) -> dict[str, Tensor]:
        """A copy of all weights and buffers of backbone and method."""
        parts = {"backbone": self.model.backbone, "method": self.model.method}
        return {
            f"{part}.{name}": value.detach().clone()
            for part, module in parts.items()
            for name, value in module.state_dict().items()
        }
