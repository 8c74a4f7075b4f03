"""The phases of a training: pre-training, initialisation, hashing, each leaving a checkpoint."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from deephash.core.distributed import broadcast_object
from deephash.core.errors import UserError
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
from deephash.training.checkpoints import copy_checkpoint, read_checkpoint, weights_digest
from deephash.training.features import extract_features
from deephash.training.modules import Classifier, HashingModule
from deephash.training.optimization import PhaseOptimization
from deephash.training.pretraining import PretrainingCache, pretraining_lock
from deephash.training.settings import ClassifyPhase, PhaseSettings
from deephash.training.state import History, Model, TrainingData

log = logging.getLogger(__name__)

UNFINISHED = ".unfinished.ckpt"  # suffix of the checkpoint of a phase at work


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
        self.later_phases: list[str] = []  # than the one at work
        self.trained_from = ""  # see `PhaseModule`

    def run(self, phases: Mapping[str, PhaseSettings]) -> History:
        """Run the phases, by name, in order.

        Raises:
            UserError: a checkpoint is missing, corrupt or of another model, or the training failed
                in a way that a setting mends.
        """
        backbone, method = self.model.backbone.backbone, self.model.method
        log.info("backbone %s, method %s", _describe_size(backbone), _describe_size(method))
        history = self.history
        phases_so_far: dict[str, PhaseSettings] = {}
        for name, phase in phases.items():
            start = time.perf_counter()
            phases_so_far[name] = phase
            self.later_phases = list(phases)[len(phases_so_far) :]
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
            self.trained_from = self._weights_digest(name)
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
            "trained_from": self.trained_from,
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
        log.info("%s: reusing the finished pre-training in %s", name, cached)
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
        """Load what this run has trained, or train it.

        Raises:
            UserError: it is missing, and a later phase began from it.
        """
        checkpoint_path = self._checkpoint_path(name)
        if broadcast_object(checkpoint_path.is_file()):
            self._load(checkpoint_path, module, curves)
            loggers = loggers_starting_empty(self.loggers) if self.is_resumed else self.loggers
            replay(curves.rows, loggers)
        else:
            self._check_not_begun_later(checkpoint_path)
            self._train(name, phase, module, curves)

    def _check_not_begun_later(self, missing: Path) -> None:
        paths = [self._checkpoint_path(name) for name in self.later_phases]
        paths += [path.with_suffix(UNFINISHED) for path in paths]
        names = broadcast_object(", ".join(path.name for path in paths if path.is_file()))
        if names:
            raise UserError(
                f"{missing} is missing, and {names} beside it began from it. Put it back, or "
                f"remove {names}, too, and all are trained again."
            )

    def _train(
        self,
        name: str,
        phase: PhaseSettings,
        module: Classifier | HashingModule,
        curves: CurveRecorder,
    ) -> None:
        features = self._features_of_all() if phase.trains == "head" else None
        data = self.data.serve(phase.batch_size, phase=name, features=features)
        unfinished = self._checkpoint_path(name).with_suffix(UNFINISHED)
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
        trainer = self.make_trainer(
            callbacks=callbacks, logger=self.loggers, max_epochs=phase.epochs
        )
        is_continued = broadcast_object(unfinished.is_file())
        suffix = ", from where it stopped" if is_continued else ""
        plural = "" if phase.epochs == 1 else "s"
        log.info("%s: %d epoch%s%s", name, phase.epochs, plural, suffix)
        if is_continued:
            self._load_weights(unfinished, module)  # again by Lightning, which would not explain
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

    def _weights_digest(self, name: str) -> str:
        is_last = not self.later_phases
        digest = (
            "" if is_last or not is_rank_zero() else weights_digest(self._checkpoint_path(name))
        )
        return broadcast_object(digest)

    def _checkpoint_path(self, name: str) -> Path:
        """Where the checkpoint of a finished phase lies."""
        return self.checkpoint_dir / f"{name}.ckpt"

    def _load(
        self, path: Path, module: Classifier | HashingModule, curves: CurveRecorder
    ) -> dict[str, Any]:
        checkpoint = self._load_weights(path, module)
        module.on_load_checkpoint(checkpoint)
        curves.load_state_dict(checkpoint["callbacks"][curves.state_key])
        return checkpoint

    def _load_weights(self, path: Path, module: Classifier | HashingModule) -> dict[str, Any]:
        checkpoint = read_checkpoint(path, module.identity, module.trained_from)
        try:
            module.load_state_dict(checkpoint["state_dict"])
        except RuntimeError as error:
            raise UserError(
                f"{path} does not fit the code of backbone or method, which has changed: "
                f"{' '.join(str(error).split())} Undo the change, or start a new run."
            ) from None
        return checkpoint


def _describe_size(module: nn.Module) -> str:
    count = sum(parameter.numel() for parameter in module.parameters() if not is_lazy(parameter))
    return f"{type(module).__name__}: {count:,} parameters"
