"""One run: build what the configuration names, train, encode, evaluate, report."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from deephash import console, processes, tracking
from deephash.backbones import Standardized
from deephash.config import Settings, build, check, checked
from deephash.data.image_set import ImageSet, channel_statistics
from deephash.data.protocols import Split, with_validation
from deephash.errors import UserError
from deephash.files import write_json, written_whole
from deephash.phases import Training, check_optimizers
from deephash.report import record_of, report
from deephash.seeds import derived_seed
from deephash.stopping import interruptible, restarted

CONFIG, FIGURES = "config.yaml", "metrics.json"
IMAGES_FITTED = 1000  # enough for the statistics of a first layer
MAY_CHANGE_ON_RESUME = ("trainer", "logger", "data_dir", "cache_dir", "resume", "run_dir")


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
        settings = _resumed(cfg) if cfg.get("resume") else checked(cfg)
        if restarted():
            folder = folder or settings.run_dir
        if folder and (folder / CONFIG).is_file():
            settings = _gone_on_with(settings, folder)
            if (folder / FIGURES).is_file():
                print(f"{folder.name}: found finished")
                return _objective(json.loads((folder / FIGURES).read_text())["validation"])
        folder = settings.resume or folder or _run_folder(settings)
        with interruptible(folder / CONFIG):
            return _run(settings, folder)


def _run(settings: Settings, folder: Path) -> float:
    began = time.perf_counter()
    image_set, split = _data(settings)
    trainer, wanted = _trainer_settings(settings.trainer)
    _check_against_data(settings, image_set, split, wanted)
    model = _model(settings, image_set, split)
    check_optimizers(settings.ordered_phases())
    check("logger", settings.logger)
    with processes.together(trainer, wanted, folder):
        return _train(settings, processes.agreed(folder), image_set, split, model, trainer, began)


def _train(
    settings: Settings,
    folder: Path,
    image_set: ImageSet,
    split: Split,
    model: tuple[Standardized, Any],
    trainer: dict[str, Any],
    began: float,
) -> float:
    record = record_of(settings, image_set, split, trainer)
    loggers = _begun(settings, folder, image_set, split, record) if processes.is_first() else []
    try:
        training = Training(
            backbone=model[0],
            method=model[1],
            image_set=image_set,
            split=split,
            bits=settings.bits,
            augment=settings.augment,
            eval_batch_size=settings.evaluation.batch_size,
            seed=settings.seed,
            trainer=_trainer_factory(trainer, folder),
            loggers=loggers,
            folder=folder / "checkpoints",
            cache=settings.cache_dir,
            pretraining_identity={
                key: record[key]
                for key in ("data", "split", "augment", "backbone", "seed", "precision", "versions")
            },
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
    """Claim the folder, write down what is known beforehand, and open the loggers."""
    _claim(folder, settings)
    write_json(folder / "record.json", record)
    with written_whole(folder / "split.npz") as path:
        ids = {name: image_set.ids[indices] for name, indices in split.arrays().items()}
        np.savez_compressed(path, **ids)
    name = f"{image_set.name}-{_short(settings.backbone)}-{_short(settings.method)}"
    name = f"{name}-{settings.bits}bits-seed{settings.seed}"
    config = settings.model_dump(mode="json")
    beside = folder.absolute().parent
    among_others = any((beside / left).is_file() for left in ("multirun.yaml", "study.log"))
    sweep = "/".join(beside.parts[-2:]) if among_others else None
    logger = build("logger", settings.logger, folder, name, config, sweep)
    return [logger] if logger else []


def _run_folder(settings: Settings) -> Path:
    """Where this run writes: `run_dir`, which must not hold a run."""
    folder = settings.run_dir
    if (folder / CONFIG).exists() and processes.is_first():
        raise UserError(
            f"run_dir={folder} already holds a run. Go on with it by resume={folder}, "
            "or name another run_dir."
        )
    return folder


def _claim(folder: Path, settings: Settings) -> None:
    """Make the folder and write the configuration, with which a stopped run goes on."""
    if settings.resume:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(folder / CONFIG) as path:
            path.write_text(OmegaConf.to_yaml(settings.model_dump(mode="json")))
    except OSError as error:
        raise UserError(
            f"run_dir={folder} cannot be written to ({error.strerror}). Name another run_dir."
        ) from None


def _resumed(cfg: DictConfig) -> Settings:
    """The settings that the stopped run began with, but where and how it runs."""
    folder = Path(cfg.resume)
    if not (folder / CONFIG).is_file():
        raise UserError(f"resume={folder}: no run is there (no {CONFIG}). Name a run's folder.")
    saved = cast(DictConfig, OmegaConf.load(folder / CONFIG))
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    for override in overrides:
        group = override.lstrip("+~").partition("=")[0].partition(".")[0]
        if group not in MAY_CHANGE_ON_RESUME:
            raise UserError(
                f"{override} cannot be given with resume={folder}: a run goes on with the settings "
                f"it began with. May change: {', '.join(MAY_CHANGE_ON_RESUME[:-2])}."
            )
        saved[group] = cfg[group]
    saved.resume = str(folder)
    return checked(saved)


def _gone_on_with(settings: Settings, folder: Path) -> Settings:
    """These settings, for the run that `folder` holds.

    Raises:
        UserError: that run has others.
    """
    saved = checked(cast(DictConfig, OmegaConf.load(folder / CONFIG))).model_dump()
    for name, value in settings.model_dump().items():
        if name not in MAY_CHANGE_ON_RESUME and saved[name] != value:
            raise UserError(
                f"{folder} holds a run with {name}={saved[name]}, this one has {name}={value}. "
                "Name another run_dir."
            )
    return settings.model_copy(update={"resume": folder})


def _data(settings: Settings) -> tuple[ImageSet, Split]:
    image_set = build("dataset", settings.dataset)
    split = build("protocol", settings.protocol, image_set, settings.seed)
    return image_set, with_validation(
        split,
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


def _model(settings: Settings, image_set: ImageSet, split: Split) -> tuple[Standardized, Any]:
    """Backbone and method, each initialised by a seed of its own."""
    _, channels, height, width = image_set.images.shape
    pl.seed_everything(derived_seed(settings.seed, "backbone"), verbose=False)
    backbone = build("backbone", settings.backbone, channels, (height, width))
    known = getattr(backbone, "statistics", None)
    statistics = known or channel_statistics(image_set.images, split.train)
    backbone = Standardized(backbone, *statistics)
    some = split.train[:: -(-len(split.train) // IMAGES_FITTED)]
    backbone.fit(image_set.images[torch.from_numpy(some)])
    pl.seed_everything(derived_seed(settings.seed, "method"), verbose=False)
    classes = len(image_set.classes)
    method = build("method", settings.method, backbone.num_features, settings.bits, classes)
    return backbone, method


def _trainer_settings(node: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The trainer's settings with `precision: auto` resolved, tried once; how many processes."""
    if node.get("precision") == "auto":
        node = {**node, "precision": "bf16-mixed" if _has_bfloat16(node) else "32-true"}
    try:
        trainer = build("trainer", node, logger=False, enable_checkpointing=False)
    except Exception as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(
            f"trainer: {reason} (accelerator={node.get('accelerator')}, "
            f"devices={node.get('devices')}, precision={node['precision']}). "
            "Without a GPU use trainer=cpu."
        ) from None
    wanted, started = trainer.world_size, processes.started_by_another()
    if started > 1 and wanted != started:
        raise UserError(
            f"{started} processes were started, but trainer.devices={node.get('devices')} makes "
            f"{wanted}. Use trainer=ddp or trainer=ddp_cpu, which take as many as were started."
        )
    if wanted > 1 and started == 1 and in_a_sweep():
        raise UserError(
            f"-m with trainer.devices={node.get('devices')}: each of the {wanted} processes would "
            "start the sweep anew. Start them by torchrun or Slurm, or use one device a run."
        )
    return node, wanted


def in_a_sweep() -> bool:
    """Whether Hydra runs one of many jobs."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _has_bfloat16(node: dict[str, Any]) -> bool:
    """Whether the device computes in bfloat16 faster than in float32."""
    if node.get("accelerator") != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if node.get("accelerator") == "mps" or torch.backends.mps.is_available():
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _trainer_factory(node: dict[str, Any], folder: Path) -> Any:
    def trainer(**kwargs: Any) -> pl.Trainer:
        return build(
            "trainer",
            node,
            default_root_dir=folder,
            enable_model_summary=False,
            use_distributed_sampler=False,  # ours neither pads nor repeats
            enable_checkpointing=bool(kwargs["callbacks"]),
            enable_progress_bar=False if not sys.stdout.isatty() else None,
            num_sanity_val_steps=0,
            **kwargs,
        )

    return trainer


def _short(node: dict[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2].lower()
