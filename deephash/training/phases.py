"""Pre-training, initialisation, hashing: phases over one backbone, each leaving a checkpoint."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    Callback,
    ModelCheckpoint,
    RichModelSummary,
    RichProgressBar,
)
from pytorch_lightning.loggers import Logger
from torch import Tensor

from deephash.backbones import NormalizedBackbone
from deephash.core import distributed, ranks
from deephash.core.instantiate import build, without_import_paths
from deephash.core.io import atomic_write
from deephash.core.seeds import derived_seed
from deephash.data.datamodule import HashingData
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split
from deephash.experiment.settings import Augment, ClassifyPhase, HashPhase
from deephash.experiment.signals import KeepSigtermHandler
from deephash.methods.base import Method
from deephash.training import checkpoints
from deephash.training.callbacks import LOG_EVERY, Curves, EpochPrinter, Row, replay, rewriting
from deephash.training.modules import Classifier, FeatureExtractor, HashingModule


@dataclass
class Training:
    """A model and all that its phases share.

    Attributes:
        backbone: of all phases.
        method: hash head and loss.
        image_set: what is learnt from.
        split: of it.
        bits: code length.
        augment: of training images.
        eval_batch_size: of validation and extraction.
        seed: of the run.
        trainer: makes a Trainer from callbacks, loggers, epochs.
        loggers: of the run.
        folder: of the run's checkpoints.
        cache: folder of finished pre-trainings.
        pretraining_identity: plain values that determine a pre-training, phase settings aside.
        identity: plain values that tell what the whole model is.
        resumed: whether `loggers` already know the curves of what lies in `folder`.
        show_progress: bars, for a terminal; else a line an epoch.
    """

    backbone: NormalizedBackbone
    method: Method
    image_set: ImageSet
    split: Split
    bits: int
    augment: Augment
    eval_batch_size: int
    seed: int
    trainer: Callable[..., pl.Trainer]
    loggers: list[Logger]
    folder: Path
    cache: Path
    pretraining_identity: Mapping[str, Any]
    identity: dict[str, Any]
    resumed: bool
    show_progress: bool
    rows: list[Row] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    earlier_seconds: float = 0.0
    found_seconds: float = 0.0

    def run(self, phases: Mapping[str, ClassifyPhase | HashPhase]) -> None:
        """Bring the model through `phases`; finished ones are loaded, a stopped one goes on.

        Fills `rows` with the curves, `seconds` with the time that each phase took this run,
        `earlier_seconds` with what of it was before the run was stopped, and `found_seconds` with
        what a pre-training that was found had taken.

        Raises:
            UserError: a checkpoint is corrupt or of another model, or the training failed in a way
                that a setting mends.
        """
        determined_by = _digest(without_import_paths(dict(self.pretraining_identity)))
        for name, phase in phases.items():
            began = time.perf_counter()
            determined_by = _digest([determined_by, without_import_paths(phase.model_dump())])
            pl.seed_everything(derived_seed(self.seed, name), verbose=False)
            module = self._module(name, phase)
            curves = Curves(name, first_step=int(self.rows[-1]["step"]) if self.rows else 0)
            if isinstance(phase, ClassifyPhase):
                cached = self.cache / f"{name}-{determined_by[:16]}.ckpt"
                with checkpoints.pretraining_lock(cached):
                    self._pretrained(name, phase, module, curves, cached)
            else:
                self._trained(name, phase, module, curves)
            self.rows += curves.rows
            self.seconds[name] = curves.earlier_seconds + time.perf_counter() - began
            self.earlier_seconds += curves.earlier_seconds
            self.found_seconds += curves.found_seconds

    def _pretrained(
        self,
        name: str,
        phase: ClassifyPhase,
        module: Classifier | HashingModule,
        curves: Curves,
        cached: Path,
    ) -> None:
        """Train, or take over what another run trained."""
        finished = self._finished(name)
        if distributed.broadcast_object(finished.is_file() or not cached.is_file()):
            self._trained(name, phase, module, curves)
            if ranks.is_rank_zero() and not cached.is_file():
                checkpoints.copy(finished, cached)
            return
        print(f"{name}: found finished in {cached}")
        checkpoint = self._load(cached, module, curves)
        replay(curves.rows, self.loggers)
        curves.of_another_run()
        checkpoint["callbacks"][curves.state_key] = curves.state_dict()
        if ranks.is_rank_zero():
            with atomic_write(finished) as part:
                torch.save(checkpoint, part)

    def _trained(
        self,
        name: str,
        phase: ClassifyPhase | HashPhase,
        module: Classifier | HashingModule,
        curves: Curves,
    ) -> None:
        """Train, unless this run has."""
        if distributed.broadcast_object(self._finished(name).is_file()):
            self._load(self._finished(name), module, curves)
            replay(curves.rows, rewriting(self.loggers) if self.resumed else self.loggers)
        else:
            self._fit(name, phase, module, curves)

    def _finished(self, name: str) -> Path:
        """The checkpoint of a finished phase."""
        return self.folder / f"{name}.ckpt"

    def features(self, indices: np.ndarray) -> Tensor:
        """Features, float32 (n, num_features) on the CPU, of these images, not augment."""
        trainer = self.trainer(callbacks=[], logger=False, max_epochs=1)
        batches = trainer.predict(
            FeatureExtractor(self.backbone), self._data(batch_size=2).loader(indices)
        )
        mine = torch.cat(cast(list[Tensor], batches)).to(trainer.strategy.root_device)
        return distributed.all_gather_with_grad(mine, len(indices)).cpu()

    def _module(self, name: str, phase: ClassifyPhase | HashPhase) -> Classifier | HashingModule:
        shared: dict[str, Any] = {
            "optimizer": build(f"phase.{name}.optimizer", phase.optimizer, partial=True),
            "warmup": phase.warmup,
            "identity": {**self.identity, "phase": name},
        }
        if isinstance(phase, ClassifyPhase):
            for of_the_head in ("bits", "method"):  # a pre-training does not depend on it
                del shared["identity"][of_the_head]
            return Classifier(
                self.backbone,
                len(self.image_set.classes),
                multi_label=self.image_set.labels.ndim > 1,
                label_smoothing=phase.label_smoothing,
                **shared,
            )
        head_only = phase.trains == "head"
        return HashingModule(
            self.backbone, self.method, head_only=head_only, bits=self.bits, **shared
        )

    def _data(self, batch_size: int, features: Tensor | None = None, name: str = "") -> HashingData:
        return HashingData(
            self.image_set,
            self.split,
            batch_size=batch_size,
            eval_batch_size=self.eval_batch_size,
            translate=self.augment.translate,
            flip=self.augment.flip,
            cutout=self.augment.cutout,
            seed=derived_seed(self.seed, name, "batches"),
            features=features,
        )

    def _fit(
        self,
        name: str,
        phase: ClassifyPhase | HashPhase,
        module: Classifier | HashingModule,
        curves: Curves,
    ) -> None:
        features = self._features_of_all() if phase.trains == "head" else None
        data = self._data(phase.batch_size, features, name)
        unfinished = self._finished(name).with_suffix(".unfinished.ckpt")
        saving = ModelCheckpoint(
            dirpath=unfinished.parent,
            filename=unfinished.stem,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        callbacks: list[Callback] = [
            _SeededEpochs(derived_seed(self.seed, name)),
            KeepSigtermHandler(),
            curves,
            RichProgressBar(refresh_rate=LOG_EVERY)
            if self.show_progress
            else EpochPrinter(name, curves),
            saving,
        ]
        if not self.seconds:
            callbacks.append(RichModelSummary(max_depth=2))
        trainer = self.trainer(callbacks=callbacks, logger=self.loggers, max_epochs=phase.epochs)
        goes_on = distributed.broadcast_object(unfinished.is_file())
        print(f"{name}: {phase.epochs} epochs" + (", from where it stopped" if goes_on else ""))
        if goes_on:
            checkpoints.read(unfinished, module.identity)
        trainer.fit(module, datamodule=data, ckpt_path=str(unfinished) if goes_on else None)
        if ranks.is_rank_zero():
            unfinished.replace(self._finished(name))

    def _features_of_all(self) -> Tensor:
        """One row for each image of the set; zeros where none is needed."""
        needed = np.concatenate([self.split.train, self.split.validation])
        found = self.features(needed)
        features = found.new_zeros(len(self.image_set), self.backbone.num_features)
        features[torch.from_numpy(needed)] = found
        return features

    def _load(
        self, path: Path, module: Classifier | HashingModule, curves: Curves
    ) -> dict[str, Any]:
        checkpoint = checkpoints.read(path, module.identity)
        module.load_state_dict(checkpoint["state_dict"])
        curves.load_state_dict(checkpoint["callbacks"][curves.state_key])
        return checkpoint


def check_optimizers(phases: Mapping[str, ClassifyPhase | HashPhase]) -> None:
    """Try each phase's optimizer on one number, before anything is trained.

    Raises:
        UserError: it refuses its settings.
    """
    for name, phase in phases.items():
        place = f"phase.{name}.optimizer"
        build(place, phase.optimizer, [torch.nn.Parameter(torch.zeros(1))])


class _SeededEpochs(Callback):
    """Seeds the global generators at each epoch, so that a resumed epoch draws the same."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl.seed_everything(derived_seed(self.seed, trainer.current_epoch), verbose=False)


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
