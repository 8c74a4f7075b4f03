"""The phases of a training: pre-training, initialisation, hashing, each leaving a checkpoint."""

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from deephash.core.distributed import broadcast_object
from deephash.core.messages import MILESTONE
from deephash.core.ranks import is_rank_zero
from deephash.core.seeds import derived_seed
from deephash.training.callbacks import (
    CurveRecorder,
    EpochPrinter,
    EpochSeeder,
    loggers_starting_empty,
    replay,
)
from deephash.training.checkpoints import (
    UNFINISHED,
    CheckpointError,
    check_no_folders,
    check_not_begun,
    copy_checkpoint,
    load_checkpoint,
    weights_digest,
    write_checkpoint,
)
from deephash.training.features import extract_features
from deephash.training.modules import Classifier, HashingModule
from deephash.training.optimization import PhaseOptimization
from deephash.training.pretraining import PretrainingCache, pretraining_lock
from deephash.training.progress import PhaseBar
from deephash.training.settings import ClassifyPhase, PhaseSettings
from deephash.training.state import History, Model, TrainingData
from deephash.training.trainer import convert_precision

log = logging.getLogger(__name__)


class PhaseRunner:
    """Takes a model through its phases: finished ones are loaded, a stopped one is continued.

    Args:
        model: to train.
        data: to train on.
        optimizations: optimizer and schedule of each phase, by name.
        make_trainer: see `trainer_factory`.
        precision: of these trainers.
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
        precision: str | int,
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
        self.precision = precision
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
        check_no_folders(map(self._checkpoint_path, phases))
        convert_precision(method, self.precision)
        phases_so_far: dict[str, PhaseSettings] = {}
        for name, phase in phases.items():
            start = time.perf_counter()
            phases_so_far[name] = phase
            self.later_phases = list(phases)[len(phases_so_far) :]
            pl.seed_everything(derived_seed(self.data.seed, name), verbose=False)
            is_shared = isinstance(phase, ClassifyPhase)
            cached = self.cache.path(phases_so_far) if is_shared else None
            module = self._module(name, phase, cache_key=cached.stem if cached else "")
            curves = CurveRecorder(name, self.history.last("step"), self.history.last("epoch"))
            if cached:
                with pretraining_lock(cached):
                    self._pretrain(name, phase, module, curves, cached)
            else:
                self._load_or_train(name, phase, module, curves)
            self.trained_from = self._weights_digest(name)
            self.history.rows += curves.rows
            self.history.seconds[name] = curves.earlier_seconds + time.perf_counter() - start
            self.history.earlier_seconds += curves.earlier_seconds
            self.history.cached_seconds += curves.cached_seconds
        return self.history

    def _module(
        self, name: str, phase: PhaseSettings, cache_key: str
    ) -> Classifier | HashingModule:
        model, optimization = self.model, self.optimizations[name]
        settings = phase.model_dump(mode="json")
        shared: dict[str, Any] = {
            "make_optimizer": optimization.make_optimizer,
            "schedule": optimization.schedule,
            "identity": {**model.identity, "phase": name, "settings": settings},
            "cache_key": cache_key,
            "trained_from": self.trained_from,
        }
        if isinstance(phase, ClassifyPhase):
            for key in ("bits", "method"):  # a pre-training does not depend on them
                del shared["identity"][key]
            module: Classifier | HashingModule = Classifier(
                model.backbone,
                len(self.data.image_set.classes),
                multi_label=self.data.image_set.labels.ndim > 1,
                label_smoothing=phase.label_smoothing,
                **shared,
            )
        else:
            head_only = phase.trains == "head"
            module = HashingModule(
                model.backbone, model.method, head_only=head_only, bits=model.bits, **shared
            )
        # Lightning converts what it trains, but weights are also loaded, without a training.
        convert_precision(module, self.precision)
        return module

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
        is_cached = broadcast_object(cached.is_file())
        if is_cached and not broadcast_object(checkpoint_path.is_file()):
            checkpoint = self._load_cached(name, module, curves, cached)
            if checkpoint:
                replay(curves.rows, self.loggers)
                curves.mark_as_cached()
                checkpoint["callbacks"][curves.state_key] = curves.state_dict()
                if is_rank_zero():
                    write_checkpoint(checkpoint, checkpoint_path)
                return
            is_cached = False  # what lies there is of no use, and is replaced
        self._load_or_train(name, phase, module, curves)
        if module.cache_key != cached.stem:
            log.warning(
                "%s: it began with other code, versions or settings than today's; other runs "
                "will not share it",
                name,
            )
        elif is_rank_zero() and not is_cached:
            try:
                copy_checkpoint(checkpoint_path, cached)
            except OSError as error:
                log.warning("%s: other runs will not share it: %s", name, error)

    def _load_cached(
        self, name: str, module: Classifier | HashingModule, curves: CurveRecorder, cached: Path
    ) -> dict[str, Any] | None:
        """Load what another run trained; None where it cannot be used, as rank zero finds."""
        before = copy.deepcopy(module.state_dict())
        checkpoint, problem = None, ""
        if is_rank_zero():
            try:
                checkpoint = self._load(cached, module, curves)
            except CheckpointError as error:
                problem = error.reason
        problem = broadcast_object(problem)
        if problem:
            log.warning("%s: %s %s; it is trained again", name, cached, problem)
            module.load_state_dict(before)
            return None
        log.info("%s: reusing the finished pre-training in %s", name, cached, extra=MILESTONE)
        return checkpoint or self._load(cached, module, curves)

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
            check_not_begun(map(self._checkpoint_path, self.later_phases), checkpoint_path)
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
        unfinished = self._checkpoint_path(name).with_suffix(UNFINISHED)
        callbacks: list[Callback] = [
            EpochSeeder(derived_seed(self.data.seed, name)),
            curves,
            PhaseBar(name) if self.show_progress else EpochPrinter(name, curves),
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
        suffix, extra = (", from where it stopped", MILESTONE) if is_continued else ("", None)
        plural = "s" * (phase.epochs != 1)
        log.info("%s: %d epoch%s%s", name, phase.epochs, plural, suffix, extra=extra)
        if is_continued:
            # Lightning loads it again, and would not explain what is wrong with it.
            load_checkpoint(unfinished, module, is_finished=False)
        ckpt_path = str(unfinished) if is_continued else None
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
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
        is_needed = is_rank_zero() and bool(self.later_phases)
        return broadcast_object(weights_digest(self._checkpoint_path(name)) if is_needed else "")

    def _checkpoint_path(self, name: str) -> Path:
        """Where the checkpoint of a finished phase lies."""
        return self.checkpoint_dir / f"{name}.ckpt"

    def _load(
        self, path: Path, module: Classifier | HashingModule, curves: CurveRecorder
    ) -> dict[str, Any]:
        checkpoint = load_checkpoint(path, module)
        module.on_load_checkpoint(checkpoint)
        curves.load_state_dict(checkpoint["callbacks"][curves.state_key])
        return checkpoint


def _describe_size(module: nn.Module) -> str:
    count = sum(parameter.numel() for parameter in module.parameters() if not is_lazy(parameter))
    return f"{type(module).__name__}: {count:,} parameters"
