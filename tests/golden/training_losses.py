"""The losses of the first twenty steps of each phase, for the golden file and its test.

Each method is trained as `method=NAME dataset=digits` says, through all phases, with these
differences, which make it fast and the same on every machine:

- a net of tiny widths and batches of a quarter of an epoch, four epochs for each phase: 20 steps;
- float64, on one thread of the CPU;
- weights drawn in float64 by numpy: torch draws them in float32, and processors with and without
  AVX round these differently;
- filters of the stem that are not whitened: the signs of eigenvectors are the library's choice.
"""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from deephash.backbones.normalize import NormalizedBackbone
from deephash.cli.compose import compose_config
from deephash.core.instantiate import build
from deephash.data.image_set import channel_statistics
from deephash.experiment.data import load_data
from deephash.experiment.settings import Settings, validate_settings
from deephash.training.optimization import PhaseOptimization
from deephash.training.phases import PhaseRunner
from deephash.training.pretraining import PretrainingCache
from deephash.training.state import Model, TrainingData
from deephash.training.trainer import trainer_factory

STEPS = 20
EPOCHS = 4
OVERRIDES = [
    "dataset=digits",
    "bits=12",
    "backbone=resnet_small",
    "backbone.widths=[4,6,8]",
    "trainer=cpu",
    "trainer.precision=64-true",
    "logger=none",
]
PHASES = ("pretrain", "init", "hash")


class LossRecorder(Callback):
    """Records the loss of each step, and a copy of the module and the batch of the first."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.module: Any = None
        self.batch: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if hasattr(pl_module, "classifier"):
            draw_weights(pl_module.classifier)  # type: ignore[arg-type]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not self.losses:
            self.batch = {name: value.clone() for name, value in batch.items()}
            parts = ("backbone", "classifier", "method")
            self.module = {
                name: copy.deepcopy(getattr(pl_module, name))
                for name in parts
                if hasattr(pl_module, name)
            }

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.losses.append(outputs["loss"].item())


def draw_weights(module: nn.Module) -> None:
    """Draw the matrices of a module evenly, up to 1 / sqrt(inputs); its biases become zero."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                bound = parameter[0].numel() ** -0.5
                parameter.copy_(torch.from_numpy(rng.uniform(-bound, bound, parameter.shape)))
            elif name.endswith("bias"):
                parameter.zero_()


def train(method: str, *overrides: str) -> tuple[Settings, dict[str, LossRecorder]]:
    """Train a method through all phases.

    Args:
        method: name of a file in `conf/method/`.
        overrides: of the configuration, beside `OVERRIDES`.

    Returns:
        The settings, and what was recorded in each phase.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _train(method, overrides, Path(folder))
    finally:
        torch.set_num_threads(threads)


def _train(
    method: str, overrides: tuple[str, ...], folder: Path
) -> tuple[Settings, dict[str, LossRecorder]]:
    places = [f"run_dir={folder / 'run'}", f"cache_dir={folder / 'cache'}"]
    lengths = [f"training.{name}.epochs={EPOCHS}" for name in PHASES]
    # 1,347 images in five batches.
    lengths += [f"training.{name}.batch_size=270" for name in PHASES]
    arguments = [f"method={method}", *OVERRIDES, *lengths, *places, *overrides]
    settings = validate_settings(compose_config(arguments))
    image_set, split = load_data(settings)
    statistics = channel_statistics(image_set.images, split.train)
    _, channels, height, width = image_set.images.shape
    net = build("backbone", settings.backbone, channels, (height, width))
    backbone = NormalizedBackbone(net, *statistics)
    head = build(
        "method", settings.method, backbone.num_features, settings.bits, len(image_set.classes)
    )
    draw_weights(backbone.double())
    draw_weights(head.double())
    recorders: dict[str, LossRecorder] = {}
    phases = settings.ordered_phases()
    runner = PhaseRunner(
        Model(backbone, head, settings.bits, {"method": method, "bits": settings.bits}),
        TrainingData(image_set, split, settings.augment, 500, settings.seed),
        optimizations={
            name: PhaseOptimization(f"training.{name}", phase, torch.float32)
            for name, phase in phases.items()
        },
        make_trainer=_recording_factory(settings, folder, recorders),
        precision=settings.trainer["precision"],
        loggers=[],
        checkpoint_dir=folder / "checkpoints",
        cache=PretrainingCache(folder / "cache", {}),
        is_resumed=False,
        show_progress=False,
    )
    runner.run(phases)
    return settings, recorders


def _recording_factory(
    settings: Settings, folder: Path, recorders: dict[str, LossRecorder]
) -> Callable[..., pl.Trainer]:
    make = trainer_factory(settings.trainer, folder)
    names = iter(settings.ordered_phases())

    def make_trainer(*, callbacks: list[Callback], **kwargs: Any) -> pl.Trainer:
        if callbacks:  # a training, not an extraction of features
            recorder = recorders[next(names)] = LossRecorder()
            callbacks = [*callbacks, recorder]
        return make(callbacks=callbacks, **kwargs)

    return make_trainer
