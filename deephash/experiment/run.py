"""One run: build what the configuration names, train, encode, evaluate, report."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger

from deephash.backbones import NormalizedBackbone
from deephash.core import distributed, ranks
from deephash.core.errors import UserError
from deephash.core.instantiate import build, check_node
from deephash.core.io import atomic_write, write_json
from deephash.core.seeds import derived_seed
from deephash.data.image_set import ImageSet, channel_statistics
from deephash.data.splits import Split, drop_query_duplicates, hold_out_validation
from deephash.experiment import console
from deephash.experiment import loggers as tracking
from deephash.experiment.report import record_of, report
from deephash.experiment.run_dir import (
    CONFIG,
    FIGURES,
    lock_run_dir,
    resume_settings,
    resumed,
    sweep_name,
    unused_folder,
)
from deephash.experiment.settings import Settings, checked
from deephash.experiment.signals import interruptible, restarted
from deephash.training.phases import Training, check_optimizers
from deephash.training.trainer import WHERE, factory, settled, synchronised

IMAGES_FITTED = 1000  # enough for the statistics of a first layer


def run(cfg: DictConfig, folder: Path | None = None) -> float:
    """Train and evaluate what `cfg` says; all that it leaves lies in the run's folder.

    Args:
        cfg: of `conf/`, composed.
        folder: of a sweep's run, in place of `run_dir`; the run that it holds is gone on with, as
            is that of a job which Slurm begins again.

    Returns:
        mAP of the validation images after the last phase (their accuracy, if that only classifies).

    Raises:
        UserError: a setting, a file or the training is wrong in a way that a user can mend.
    """
    with console.quiet_libraries():
        settings = resumed(cfg) if cfg.get("resume") else checked(cfg)
        if restarted():
            folder = folder or settings.run_dir
        if folder and (folder / CONFIG).is_file():
            settings = resume_settings(settings, folder)
            if (folder / FIGURES).is_file():
                print(f"{folder.name}: found finished")
                return _objective(json.loads((folder / FIGURES).read_text())["validation"])
        folder = settings.resume or folder or unused_folder(settings)
        with interruptible(folder / CONFIG):
            try:
                return _run(settings, folder)
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"the GPU's memory is too small: {str(error).partition('.')[0]}. Lower "
                    "phase.<name>.batch_size or evaluation.batch_size in a new run, or share the "
                    f"batches among several GPUs: python train.py resume={folder} trainer=ddp"
                ) from None


def _run(settings: Settings, folder: Path) -> float:
    began = time.perf_counter()
    image_set, split = _data(settings)
    trainer, wanted = settled(settings.trainer)
    _check_against_data(settings, image_set, split, wanted)
    model = _model(settings, image_set, split)
    check_optimizers(settings.ordered_phases())
    check_node("logger", settings.logger)
    with launch.launch_processes(trainer, wanted, folder):
        folder = distributed.broadcast_object(folder)
        with lock_run_dir(folder, settings):
            return _train(settings, folder, image_set, split, model, trainer, began)


def _train(
    settings: Settings,
    folder: Path,
    image_set: ImageSet,
    split: Split,
    model: tuple[NormalizedBackbone, Any],
    trainer: dict[str, Any],
    began: float,
) -> float:
    record = record_of(settings, image_set, split, trainer)
    loggers = _begun(settings, folder, image_set, split, record) if ranks.is_rank_zero() else []
    try:
        training = Training(
            backbone=synchronised(model[0], trainer),
            method=synchronised(model[1], trainer),
            image_set=image_set,
            split=split,
            bits=settings.bits,
            augment=settings.augment,
            eval_batch_size=settings.evaluation.batch_size,
            seed=settings.seed,
            trainer=factory(trainer, folder),
            loggers=loggers,
            folder=folder / "checkpoints",
            cache=settings.cache_dir,
            pretraining_identity={
                key: record[key]
                for key in ("data", "split", "augment", "backbone", "seed", "versions")
            }
            | {"trainer": {key: trainer[key] for key in trainer if key not in WHERE}},
            identity={
                key: record[key]
                for key in ("dataset", "data", "split", "backbone", "method", "bits")
            },
            resumed=settings.resume is not None,
            show_progress=sys.stdout.isatty(),
        )
        training.run(settings.ordered_phases())
        report(settings, folder, training, record, began)
    except BaseException:
        tracking.finish(loggers, succeeded=False)
        raise
    tracking.finish(loggers, succeeded=True)
    return _objective(training.rows[-1])


def _objective(figures: Mapping[str, float]) -> float:
    return figures.get("val/map", figures.get("val/accuracy", float("nan")))


def _begun(
    settings: Settings, folder: Path, image_set: ImageSet, split: Split, record: dict[str, Any]
) -> list[Logger]:
    """Write down what is known beforehand, and open the loggers."""
    write_json(folder / "record.json", record)
    if image_set.report:
        write_json(folder / "data.json", image_set.report)
    with atomic_write(folder / "split.npz") as path:
        ids = {name: image_set.ids[indices] for name, indices in split.arrays().items()}
        np.savez_compressed(path, **ids)
    name = f"{image_set.name}-{_short(settings.backbone)}-{_short(settings.method)}"
    name = f"{name}-{settings.bits}bits-seed{settings.seed}"
    config = settings.model_dump(mode="json")
    logger = build("logger", settings.logger, folder, name, config, sweep_name(folder))
    return [logger] if logger else []


def _data(settings: Settings) -> tuple[ImageSet, Split]:
    image_set = build("dataset", settings.dataset)
    split = build("protocol", settings.protocol, image_set, settings.seed)
    return image_set, hold_out_validation(
        drop_query_duplicates(image_set, split),
        image_set.labels.numpy(),
        share=settings.validation.share,
        database=settings.validation.database,
        seed=settings.seed,
    )


def _check_against_data(settings: Settings, image_set: ImageSet, split: Split, wanted: int) -> None:
    """What can be wrong only once the images are known; told before anything is trained."""
    for k in settings.evaluation.ks:
        if k > len(split.database):
            raise UserError(
                f"evaluation.ks={settings.evaluation.ks}: {k} is more than the "
                f"{len(split.database)} images of the database. Lower it."
            )
    for name, phase in settings.ordered_phases().items():
        if phase.batch_size < 2 * wanted or len(split.train) < 2 * wanted:
            raise UserError(
                f"phase.{name}.batch_size={phase.batch_size} over {len(split.train)} training "
                f"images does not go round {wanted} processes. Raise it, or start fewer."
            )
    height, width = image_set.images.shape[2:]
    if settings.augment.translate >= min(height, width):
        raise UserError(
            f"augment.translate={settings.augment.translate} is not less than the images' "
            f"{height} x {width} pixels. Lower it."
        )


def _model(settings: Settings, image_set: ImageSet, split: Split) -> tuple[NormalizedBackbone, Any]:
    """Backbone and method, each initialised by a seed of its own."""
    _, channels, height, width = image_set.images.shape
    pl.seed_everything(derived_seed(settings.seed, "backbone"), verbose=False)
    backbone = build("backbone", settings.backbone, channels, (height, width))
    known = getattr(backbone, "statistics", None)
    statistics = known or channel_statistics(image_set.images, split.train)
    backbone = NormalizedBackbone(backbone, *statistics)
    some = split.train[:: -(-len(split.train) // IMAGES_FITTED)]
    backbone.fit(image_set.images[torch.from_numpy(some)])
    pl.seed_everything(derived_seed(settings.seed, "method"), verbose=False)
    classes = len(image_set.classes)
    method = build("method", settings.method, backbone.num_features, settings.bits, classes)
    return backbone, method


def _short(node: dict[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2].lower()
