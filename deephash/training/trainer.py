"""Lightning's Trainer: its settings tried once, then one for each phase."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from timm.layers import convert_sync_batchnorm
from timm.optim import muon
from timm.optim.muon import zeropower_via_newtonschulz
from torch import nn

from deephash.core import ranks
from deephash.core.errors import UserError
from deephash.core.instantiate import build
from deephash.experiment.run_dir import is_multirun
from deephash.training.checkpoints import AtomicCheckpointIO

Module = TypeVar("Module", bound=nn.Module)

WHERE = ("accelerator", "devices", "num_nodes", "strategy", "sync_batchnorm")  # not what it learns


def settled(node: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The trainer's settings with `precision: auto` resolved, tried once; how many processes."""
    if node.get("precision") == "auto":
        node = {**node, "precision": "bf16-mixed" if _has_bfloat16(node) else "32-true"}
    set_muon_dtype(torch.bfloat16 if _has_bfloat16(node) else torch.float32)
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
    wanted, started = trainer.world_size, ranks.launched_world_size()
    if started > 1 and wanted != started:
        raise UserError(
            f"{started} processes were started, but trainer.devices={node.get('devices')} makes "
            f"{wanted}. Use trainer=ddp or trainer=ddp_cpu, which take as many as were started."
        )
    if wanted > 1 and started == 1 and is_multirun():
        raise UserError(
            f"-m with trainer.devices={node.get('devices')}: each of the {wanted} processes would "
            "start the sweep anew. Start them by torchrun or Slurm, or use one device a run."
        )
    return node, wanted


def factory(node: dict[str, Any], folder: Path) -> Callable[..., pl.Trainer]:
    """Makes a phase's trainer from its callbacks, loggers and epochs; its files lie in `folder`."""

    def trainer(**kwargs: Any) -> pl.Trainer:
        return build(
            "trainer",
            {key: value for key, value in node.items() if key != "sync_batchnorm"},
            default_root_dir=folder,
            plugins=[AtomicCheckpointIO()],
            enable_model_summary=False,
            use_distributed_sampler=False,  # ours neither pads nor repeats
            enable_checkpointing=bool(kwargs["callbacks"]),
            enable_progress_bar=False if not sys.stdout.isatty() else None,
            num_sanity_val_steps=0,
            **kwargs,
        )

    return trainer


def synchronised(module: Module, node: dict[str, Any]) -> Module:
    """The module with batch norm over all processes, where `trainer.sync_batchnorm` says so.

    Lightning's conversion would take away the activations that are part of timm's batch norms.
    """
    return convert_sync_batchnorm(module) if node.get("sync_batchnorm") else module


def set_muon_dtype(dtype: torch.dtype) -> None:
    """Have timm's Muon make its products of matrices in this type.

    It makes them in bfloat16 and has no setting for it; a processor without bfloat16 takes ten to
    twenty times as long for that as for float32, and longer than for all the rest of a step.
    """
    muon.zeropower_via_newtonschulz = partial(zeropower_via_newtonschulz, dtype=dtype)


def _has_bfloat16(node: dict[str, Any]) -> bool:
    """Whether the device computes in bfloat16 faster than in float32."""
    if node.get("accelerator") != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if node.get("accelerator") == "mps" or torch.backends.mps.is_available():
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
