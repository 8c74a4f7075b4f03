"""Lightning's Trainer: its settings resolved once, then a trainer for each phase."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from torch import nn

from deephash.core.errors import UserError
from deephash.core.instantiate import build
from deephash.core.ranks import launched_world_size
from deephash.training.checkpoints import AtomicCheckpointIO
from deephash.training.launch import FABRIC_SETTINGS

Module = TypeVar("Module", bound=nn.Module)

TRUE_PRECISIONS: dict[str | int, torch.dtype] = {
    **dict.fromkeys(("64-true", "64", 64), torch.float64),
    "16-true": torch.float16,
    "bf16-true": torch.bfloat16,
}
PLACEMENT = (*FABRIC_SETTINGS, "sync_batchnorm")  # where a training runs, not what it learns


def resolve_trainer_config(
    config: dict[str, Any], *, is_multirun: bool
) -> tuple[dict[str, Any], int]:
    """The trainer's settings with `precision: auto` resolved, and the number of processes.

    Args:
        config: settings of Lightning's Trainer, of `conf/trainer/`.
        is_multirun: whether the run is a job of a sweep, which cannot launch processes itself.

    Raises:
        UserError: Lightning refuses the settings, or they do not fit the processes launched.
    """
    if "precision" not in config:
        raise UserError("trainer.precision has no value. Give it as +trainer.precision=auto")
    if config["precision"] == "auto":
        config = {**config, "precision": "bf16-mixed" if has_bfloat16(config) else "32-true"}
    try:
        trainer = build("trainer", config, logger=False, enable_checkpointing=False)
    except UserError:
        raise
    except Exception as error:  # Lightning raises many kinds
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(
            f"trainer: {reason} (accelerator={config.get('accelerator')}, "
            f"devices={config.get('devices')}, precision={config['precision']}). "
            "Without a GPU use trainer=cpu."
        ) from None
    world_size, launched = trainer.world_size, launched_world_size()
    if launched > 1 and world_size != launched:
        raise UserError(
            f"{launched} processes were launched, but trainer.devices={config.get('devices')} "
            f"makes {world_size}. Use trainer=ddp or trainer=ddp_cpu, which take as many as were "
            "launched."
        )
    if world_size > 1 and launched == 1 and is_multirun:
        raise UserError(
            f"-m with trainer.devices={config.get('devices')}: each of the {world_size} processes "
            "would start the sweep again. Launch them by torchrun or Slurm, or use one device per "
            "run."
        )
    if (
        world_size > 1
        and config.get("sync_batchnorm")
        and isinstance(trainer.accelerator, CPUAccelerator)
    ):
        raise UserError(
            "trainer.sync_batchnorm=true: torch synchronises batch norm between GPUs only. On CPUs "
            "use trainer.sync_batchnorm=false."
        )
    return config, world_size


def trainer_factory(config: dict[str, Any], folder: Path) -> Callable[..., pl.Trainer]:
    """A function that makes the trainer of a phase from its callbacks, loggers and epochs.

    Args:
        config: resolved settings, see `resolve_trainer_config`.
        folder: for files of Lightning's own.
    """
    settings = {key: value for key, value in config.items() if key != "sync_batchnorm"}

    def make_trainer(**kwargs: Any) -> pl.Trainer:
        trainer = build(
            "trainer",
            settings,
            default_root_dir=folder,
            plugins=[AtomicCheckpointIO()],
            enable_model_summary=False,
            use_distributed_sampler=False,  # ours neither pads nor repeats
            enable_checkpointing=bool(kwargs["callbacks"]),
            enable_progress_bar=False if not sys.stdout.isatty() else None,
            num_sanity_val_steps=0,
            **kwargs,
        )
        # Its handler of SIGTERM waits for the other processes, which may not have received it.
        trainer._signal_connector.register_signal_handlers = lambda: None
        return trainer

    return make_trainer


def convert_precision(module: nn.Module, precision: str | int) -> None:
    """Convert a module, in place, as Lightning does when it trains in a precision of one type.

    Args:
        module: to convert.
        precision: of Lightning's Trainer.
    """
    if precision in TRUE_PRECISIONS:
        module.to(TRUE_PRECISIONS[precision])


def sync_batchnorm(module: Module, config: dict[str, Any]) -> Module:
    """The module with batch norm over all processes, where `trainer.sync_batchnorm` asks for it.

    Lightning's conversion would drop the activations that are fused into timm's batch norms.
    """
    if not config.get("sync_batchnorm"):
        return module
    from timm.layers import convert_sync_batchnorm  # timm takes a second to import

    return convert_sync_batchnorm(module)


def has_bfloat16(config: dict[str, Any]) -> bool:
    """Whether the trainer's device computes faster in bfloat16 than in float32."""
    if config.get("accelerator") != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if config.get("accelerator") == "mps" or torch.backends.mps.is_available():
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
