"""A run from its settings to its report: build, train, encode, evaluate."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.utils import get_object
from pytorch_lightning.loggers import Logger
from torch import nn

from deephash.backbones.contract import check_backbone
from deephash.backbones.normalize import NormalizedBackbone
from deephash.core.distributed import broadcast_object
from deephash.core.instantiate import build_instance, check_node
from deephash.core.io import atomic_write, write_json
from deephash.core.ranks import is_rank_zero
from deephash.core.seeds import derived_seed
from deephash.data.image_set import ImageSet, channel_statistics
from deephash.data.splits import Split
from deephash.experiment import loggers
from deephash.experiment.data import check_against_data, load_data
from deephash.experiment.evaluate import encode_parts, limit_ranks
from deephash.experiment.failures import explain_failures
from deephash.experiment.record import RECORD, make_record, note_changed_code
from deephash.experiment.report import write_report
from deephash.experiment.run_dir import is_multirun, lock_run_dir, sweep_name
from deephash.experiment.run_loggers import open_logger, warn_if_it_fails
from deephash.experiment.settings import Settings
from deephash.experiment.trust import allow_argument
from deephash.methods.base import Method
from deephash.training.launch import launch_processes
from deephash.training.method_trial import training_device, try_method
from deephash.training.optimization import PhaseOptimization
from deephash.training.phases import PhaseRunner
from deephash.training.pretraining import PretrainingCache
from deephash.training.settings import PhaseSettings
from deephash.training.source_digest import library_versions, source_digest
from deephash.training.state import Model, TrainingData
from deephash.training.trainer import (
    PLACEMENT,
    has_bfloat16,
    resolve_trainer_config,
    sync_batchnorm,
    trainer_factory,
)

IMAGES_FITTED = 1000  # enough for the statistics of a first layer
IMAGES_TRIED = 100  # in a first loss


def train_and_evaluate(settings: Settings, run_dir: Path) -> dict[str, float]:
    """Run everything that the settings say, on as many processes as they say.

    Returns:
        The last validation metrics.

    Raises:
        UserError: a setting, a file or the training is wrong in a way that a user can fix.
    """
    start = time.perf_counter()
    image_set, split = load_data(settings)
    evaluation = limit_ranks(settings.evaluation, len(split.database))
    as_given, settings = settings, settings.model_copy(update={"evaluation": evaluation})
    trainer_config, world_size = resolve_trainer_config(settings.trainer, is_multirun=is_multirun())
    check_against_data(settings, image_set, split, world_size)
    backbone, method = _build_model(settings, image_set, split)
    optimizations = {
        name: PhaseOptimization(f"training.{name}", phase, _muon_dtype(trainer_config))
        for name, phase in settings.ordered_phases().items()
    }
    for name, phase in settings.ordered_phases().items():
        optimizations[name].make_optimizer(_parameters_to_train(phase, backbone, method))
    for name, node in settings.logger.items():
        check_node(f"logger.{name}", node)
    data = TrainingData(
        image_set, split, settings.augment, settings.evaluation.batch_size, settings.seed
    )
    allowed = allow_argument(settings.model_dump(mode="json"))
    with ExitStack() as stack:
        stack.enter_context(explain_failures(run_dir, allowed))
        _try_method(settings, data, backbone, method, trainer_config)
        stack.enter_context(launch_processes(trainer_config, world_size, run_dir, allowed))
        run_dir = broadcast_object(run_dir)
        with lock_run_dir(run_dir, as_given):
            return _train_and_report(
                settings,
                run_dir,
                data,
                sync_batchnorm(backbone, trainer_config),
                sync_batchnorm(method, trainer_config),
                optimizations,
                trainer_config,
                start,
            )


def _train_and_report(
    settings: Settings,
    run_dir: Path,
    data: TrainingData,
    backbone: NormalizedBackbone,
    method: Method,
    optimizations: Mapping[str, PhaseOptimization],
    trainer_config: dict[str, Any],
    start: float,
) -> dict[str, float]:
    record = make_record(
        settings,
        data.image_set,
        data.split,
        trainer_config,
        source_digest=_source_digest(settings),
        method_digest=source_digest(get_object(settings.method["_target_"])),
    )
    if settings.resume and is_rank_zero():
        note_changed_code(record, run_dir / RECORD)
    checkpoint_dir = run_dir.absolute() / "checkpoints"  # Lightning reads "http..." as a URL
    make_trainer = trainer_factory(trainer_config, checkpoint_dir)
    identity_keys = ("dataset", "data", "split", "backbone", "method", "bits")
    model = Model(backbone, method, settings.bits, {key: record[key] for key in identity_keys})
    run_loggers: list[Logger] = []
    try:
        if is_rank_zero():
            _write_inputs(run_dir, data, record)
            for logger in _open_loggers(settings, run_dir, record):
                run_loggers.append(logger)
        runner = PhaseRunner(
            model,
            data,
            optimizations=optimizations,
            make_trainer=make_trainer,
            precision=trainer_config["precision"],
            loggers=run_loggers,
            checkpoint_dir=checkpoint_dir,
            cache=PretrainingCache(
                settings.cache_dir, _pretraining_determinants(record, trainer_config)
            ),
            is_resumed=settings.resume is not None,
            show_progress=sys.stdout.isatty() and sweep_name(run_dir) is None,
        )
        history = runner.run(settings.ordered_phases())
        evaluation_start = time.perf_counter()
        codes = encode_parts(model, data, make_trainer)
        if is_rank_zero():
            write_report(
                settings,
                run_dir,
                data,
                codes,
                history,
                record,
                run_loggers,
                run_start=start,
                evaluation_start=evaluation_start,
            )
    except BaseException:
        _finish(run_loggers, succeeded=False)
        raise
    _finish(run_loggers, succeeded=True)
    return history.rows[-1]


def _pretraining_determinants(
    record: dict[str, Any], trainer_config: dict[str, Any]
) -> dict[str, Any]:
    """What determines a pre-training beside the settings of its phases."""
    keys = ("data", "split", "augment", "backbone", "seed", "versions", "source_digest")
    is_synchronised = trainer_config.get("sync_batchnorm", False)
    return {
        **{key: record[key] for key in keys},
        "libraries": library_versions(),
        "trainer": {key: value for key, value in trainer_config.items() if key not in PLACEMENT},
        "muon_dtype": str(_muon_dtype(trainer_config)),
        # Batch norm takes the statistics of each process, unless it is synchronised.
        "processes": 1 if is_synchronised else record["processes"],
    }


def _muon_dtype(trainer_config: dict[str, Any]) -> torch.dtype:
    return torch.bfloat16 if has_bfloat16(trainer_config) else torch.float32


def _source_digest(settings: Settings) -> str:
    """Digest of the sources of backbone, training, and the user's own optimizers and schedules."""
    nodes = [settings.backbone]
    for phase in settings.ordered_phases().values():
        nodes += [phase.optimizer, phase.scheduler]
    return source_digest(PhaseRunner, *(get_object(node["_target_"]) for node in nodes))


def _write_inputs(run_dir: Path, data: TrainingData, record: dict[str, Any]) -> None:
    """Write what is known before the training: record, split, and images that were left out."""
    image_set = data.image_set
    write_json(run_dir / RECORD, record)
    if image_set.report:
        write_json(run_dir / "data.json", image_set.report)
    with atomic_write(run_dir / "split.npz") as path:
        ids = {name: image_set.ids[indices] for name, indices in data.split.arrays().items()}
        np.savez_compressed(path, **ids)


def _open_loggers(settings: Settings, run_dir: Path, record: dict[str, Any]) -> Iterator[Logger]:
    name = f"{record['dataset']}-{_short_name(settings.backbone)}-{_short_name(settings.method)}"
    name = f"{name}-{settings.bits}bits-seed{settings.seed}"
    config = settings.model_dump(mode="json") | {"record": record}
    for key, node in settings.logger.items():
        logger = open_logger(key, node, run_dir, name, config, sweep_name(run_dir))
        if logger:
            yield logger


def _finish(run_loggers: Sequence[Logger], *, succeeded: bool) -> None:
    for logger in run_loggers:
        with warn_if_it_fails(logger):
            loggers.finish([logger], succeeded=succeeded)


def _build_model(
    settings: Settings, image_set: ImageSet, split: Split
) -> tuple[NormalizedBackbone, Method]:
    """Backbone and method, each initialised by a seed of its own."""
    _, channels, height, width = image_set.images.shape
    pl.seed_everything(derived_seed(settings.seed, "backbone"), verbose=False)
    net = build_instance("backbone", settings.backbone, nn.Module, channels, (height, width))
    check_backbone(net, channels)
    pretrained_statistics = getattr(net, "statistics", None)
    statistics = pretrained_statistics or channel_statistics(image_set.images, split.train)
    backbone = NormalizedBackbone(net, *statistics)
    sample = split.train[:: -(-len(split.train) // IMAGES_FITTED)]
    backbone.fit(image_set.images[torch.from_numpy(sample)])
    pl.seed_everything(derived_seed(settings.seed, "method"), verbose=False)
    num_classes = len(image_set.classes)
    method = build_instance(
        "method", settings.method, Method, backbone.num_features, settings.bits, num_classes
    )
    return backbone, method


def _try_method(
    settings: Settings,
    data: TrainingData,
    backbone: NormalizedBackbone,
    method: Method,
    trainer_config: dict[str, Any],
) -> None:
    if not any(phase.objective == "hash" for phase in settings.ordered_phases().values()):
        return
    sample = data.split.train[:: -(-len(data.split.train) // IMAGES_TRIED)]
    labels = data.image_set.labels[torch.from_numpy(sample)]
    device = training_device(trainer_config)
    try_method(method, backbone.num_features, settings.bits, labels, device)


def _parameters_to_train(
    phase: PhaseSettings, backbone: NormalizedBackbone, method: Method
) -> dict[str, nn.Parameter]:
    """What the optimizer of a phase will be given, by name, with a classifier of one number."""
    parts = {"backbone": backbone, "method": method, "classifier": nn.Linear(1, 1)}
    if phase.objective == "classify":
        del parts["method"]
    else:
        del parts["classifier"]
    if phase.trains == "head":
        del parts["backbone"]
    return dict(nn.ModuleDict(parts).named_parameters())


def _short_name(node: dict[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2].lower()
