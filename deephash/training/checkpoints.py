"""Checkpoints: written atomically, and read only by the model that they belong to."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from torch import Tensor

from deephash.core.errors import UserError
from deephash.core.instantiate import without_import_paths
from deephash.core.io import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its path and then moves it there.

    Lightning's own writes to the temporary folder; from another file system moving is copying, and
    a process killed meanwhile loses the previous checkpoint, too.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint, whole or not at all."""
        with atomic_write(Path(path)) as part:
            torch.save(checkpoint, part)


def read_checkpoint(path: Path, identity: Mapping[str, Any], trained_from: str) -> dict[str, Any]:
    """The checkpoint of a model with this identity.

    Args:
        path: of the file.
        identity: plain values that tell which model it is; import paths are not compared.
        trained_from: digest of the weights that the phase before left; empty in the first phase.

    Raises:
        UserError: the file cannot be read, belongs to another model, or was trained from other
            weights.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["state_dict"], checkpoint["callbacks"]
    except Exception as error:  # a damaged pickle may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} is corrupt ({reason}). Remove it and the checkpoints of later phases, and "
            "they are trained again."
        ) from None
    found = checkpoint.get("deephash", {})
    for key, expected in identity.items():
        if without_import_paths(found.get(key)) != without_import_paths(expected):
            raise UserError(
                f"{path} belongs to another model: its {key} is {found.get(key)}, that of this run "
                f"is {expected}. Start a new run, or remove the file."
            )
    if checkpoint.get("trained_from", trained_from) != trained_from:  # 0.2 kept none
        raise UserError(
            f"{path} was not trained from the checkpoint of the phase before, which has changed. "
            "Put the old one back, or remove this one and those of later phases, and they are "
            "trained again."
        )
    return checkpoint


def weights_digest(path: Path) -> str:
    """SHA-256 of the values of all parameters and buffers in a checkpoint, whatever their names."""
    digest = hashlib.sha256()
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    for value in checkpoint["state_dict"].values():
        if isinstance(value, Tensor):  # a module may add other state
            digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a checkpoint, whole or not at all."""
    with atomic_write(target) as part:
        shutil.copyfile(source, part)
