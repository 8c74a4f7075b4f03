"""The phases of a training: pre-training, initialisation, hashing, each leaving a checkpoint."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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

from deephash.core.distributed import broadcast_object
from deephash.core.io import atomic_write
from deephash.core.ranks import is_rank_zero
from deephash.core.seeds import derived_seed
from deephash.training.callbacks import (
    LOG_EVERY,
    CurveRecorder,
    EpochPrinter,
    EpochSeeder,
    SigtermHandlerKeeper,
    loggers_starting_empty,
    replay,
)
from deephash.training.checkpoints import copy_checkpoint, read_checkpoint
from deephash.training.features import extract_features
from deephash.training.modules import Classifier, HashingModule
from deephash.training.optimization import PhaseOptimization
from deephash.training.pretraining import PretrainingCache, pretraining_lock
from deephash.training.settings import ClassifyPhase, PhaseSettings
from deephash.training.state import History, Model, TrainingData

log = logging.getLogger(__name__)


class PhaseRunner:
    """Takes a model through its phases: finished ones are loaded, a stopped one is continued.

    Args:
        model: to train.
        data: to train on.
        optimizations: optimizer and schedule of each phase, by name.
        make_trainer: see `trainer_factory`.
        loggers: of the run.
        checkpoint_dir: of the run.
        cache: of finished pre-trainings.
        is_resumed: whether the loggers already have the curves of what lies in `checkpoint_dir`.
        show_progress: with bars, for a terminal; else one line per epoch is logged.
    """

    def __init__(
        self,
        model: Model,
        data: TrainingData,
        *,
        optimizations: Mapping[str, PhaseOptimization],
        make_trainer: Callable[..., pl.Trainer],
        loggers: Sequence[Logger],
        checkpoint_dir: Path,
        cache: PretrainingCache,
        is_resumed: bool,
        show_progress: bool,
    ) -> None:
        self.model = model
        self.data = data
        self.optimizations = optimizations
        self.make_trainer = make_trainer
        self.loggers = list(loggers)
        self.checkpoint_dir = checkpoint_dir
        self.cache = cache
        self.is_resumed = is_resumed
        self.show_progress = show_progress
        self.history = History()

    def run(self, phases: Mapping[str, PhaseSettings]) -> History:
        """Run the phases, by name, in order.

        Raises:
            UserError: a checkpoint is corrupt or of another model, or the training failed in a way
                that a setting mends.
        """
        history = self.history
        phases_so_far: dict[str, PhaseSettings] = {}
        for name, phase in phases.items():
            start = time.perf_counter()
            phases_so_far[name] = phase
            pl.seed_everything(derived_seed(self.data.seed, name), verbose=False)
            is_shared = isinstance(phase, ClassifyPhase)
            cached = self.cache.path(phases_so_far) if is_shared else None
            module = self._module(name, phase, cache_key=cached.stem if cached else "")
            last_step = int(history.rows[-1]["step"]) if history.rows else 0
            curves = CurveRecorder(name, first_step=last_step)
            if cached:
                with pretraining_lock(cached):
                    self._pretrain(name, phase, module, curves, cached)
            else:
                self._load_or_train(name, phase, module, curves)
            history.rows += curves.rows
            history.seconds[name] = curves.earlier_seconds + time.perf_counter() - start
            history.earlier_seconds += curves.earlier_seconds
            history.cached_seconds += curves.cached_seconds
        return history

    def _module(
        self, name: str, phase: PhaseSettings, cache_key: str
    ) -> Classifier | HashingModule:
        model, optimization = self.model, self.optimizations[name]
        shared: dict[str, Any] = {
            "make_optimizer": optimization.make_optimizer,
            "schedule": optimization.schedule,
            "identity": {**model.identity, "phase": name},
            "cache_key": cache_key,
        }
        if isinstance(phase, ClassifyPhase):
            for key in ("bits", "method"):  # a pre-training does not depend on them
                del shared["identity"][key]
            return Classifier(
                model.backbone,
                len(self.data.image_set.classes),
                multi_label=self.data.image_set.labels.ndim > 1,
                label_smoothing=phase.label_smoothing,
                **shared,
            )
        head_only = phase.trains == "head"
        return HashingModule(
            model.backbone, model.method, head_only=head_only, bits=model.bits, **shared
        )

    def _pretrain(
        self,
        name: str,
        phase: PhaseSettings,
        module: Classifier | HashingModule,
        curves: CurveRecorder,
        cached: Path,
    ) -> None:
        """Train, or take over what another run trained."""
        checkpoint_path = self._checkpoint_path(name)
        if broadcast_object(checkpoint_path.is_file() or not cached.is_file()):
            self._load_or_train(name, phase, module, curves)
            if module.cache_key != cached.stem:
                log.warning(
                    "%s: it began with other code, versions or settings than today's; other runs "
                    "will not share it",
                    name,
                )
            elif is_rank_zero() and not cached.is_file():
                copy_checkpoint(checkpoint_path, cached)
            return
        log.info("%s: found finished in %s", name, cached)
        checkpoint = self._load(cached, module, curves)
        replay(curves.rows, self.loggers)
        curves.mark_as_cached()
        checkpoint["callbacks"][curves.state_key] = curves.state_dict()
        if is_rank_zero():
            with atomic_write(checkpoint_path) as part:
                torch.save(checkpoint, part)

    def _load_or_train(
        self,
        name: str,
        phase: PhaseSettings,
        module: Classifier | HashingModule,
        curves: CurveRecorder,
    ) -> None:
        """Load what this run has trained, or train it."""
        checkpoint_path = self._checkpoint_path(name)
        if broadcast_object(checkpoint_path.is_file()):
            self._load(checkpoint_path, module, curves)
            loggers = loggers_starting_empty(self.loggers) if self.is_resumed else self.loggers
            replay(curves.rows, loggers)
        else:
            self._train(name, phase, module, curves)

    def _train(
        self,
        name: str,
        phase: PhaseSettings,
        module: Classifier | HashingModule,
        curves: CurveRecorder,
    ) -> None:
        features = self._features_of_all() if phase.trains == "head" else None
        data = self.data.serve(phase.batch_size, phase=name, features=features)
        unfinished = self._checkpoint_path(name).with_suffix(".unfinished.ckpt")
        callbacks: list[Callback] = [
            EpochSeeder(derived_seed(self.data.seed, name)),
            SigtermHandlerKeeper(),
            curves,
            RichProgressBar(refresh_rate=LOG_EVERY)
            if self.show_progress
            else EpochPrinter(name, curves),
            ModelCheckpoint(
                dirpath=unfinished.parent,
                filename=unfinished.stem,
                enable_version_counter=False,
                save_on_train_epoch_end=True,
            ),
        ]
        if not self.history.seconds:
            callbacks.append(RichModelSummary(max_depth=2))
        trainer = self.make_trainer(
            callbacks=callbacks, logger=self.loggers, max_epochs=phase.epochs
        )
        is_continued = broadcast_object(unfinished.is_file())
        suffix = ", from where it stopped" if is_continued else ""
        plural = "" if phase.epochs == 1 else "s"
        log.info("%s: %d epoch%s%s", name, phase.epochs, plural, suffix)
        if is_continued:
            read_checkpoint(unfinished, module.identity)
        trainer.fit(module, datamodule=data, ckpt_path=str(unfinished) if is_continued else None)
        if is_rank_zero():
            unfinished.replace(self._checkpoint_path(name))

    def _features_of_all(self) -> Tensor:
        """One row for each image of the set; zeros where none is needed."""
        split = self.data.split
        needed = np.concatenate([split.train, split.validation])
        backbone = self.model.backbone
        extracted = extract_features(backbone, self.data.serve(2), needed, self.make_trainer)
        features = extracted.new_zeros(len(self.data.image_set), backbone.num_features)
        features[torch.from_numpy(needed)] = extracted
        return features

    def _checkpoint_path(self, name: str) -> Path:
        """Where the checkpoint of a finished phase lies."""
        return self.checkpoint_dir / f"{name}.ckpt"

    def _load(
        self, path: Path, module: Classifier | HashingModule, curves: CurveRecorder
    ) -> dict[str, Any]:
        checkpoint = read_checkpoint(path, module.identity)
        module.load_state_dict(checkpoint["state_dict"])
        module.on_load_checkpoint(checkpoint)
        curves.load_state_dict(checkpoint["callbacks"][curves.state_key])
        return checkpoint
