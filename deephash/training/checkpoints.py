"""Checkpoints: read, held to the model, shared by runs."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning_fabric.plugins import TorchCheckpointIO

from deephash.core import distributed, ranks
from deephash.core.errors import UserError
from deephash.core.instantiate import without_import_paths
from deephash.core.io import atomic_write

POLL = 60  # seconds; the other processes wait for the first, and not beyond the half hour of DDP


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the file.

    Lightning's own writes to the temporary folder; from another file system, moving is copying, and
    a process killed meanwhile loses the checkpoint before, too.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint, whole or not at all."""
        with atomic_write(Path(path)) as part:
            torch.save(checkpoint, part)


def read(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint of a model of that identity.

    Args:
        path: of the file.
        identity: plain values that tell what the model is.

    Raises:
        UserError: it cannot be read, or is another model's.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} is corrupt ({reason}). Remove it, and its phase is trained again."
        ) from None
    found = checkpoint.get("deephash", {})
    for key, wanted in identity.items():
        if without_import_paths(found.get(key)) != without_import_paths(wanted):
            raise UserError(
                f"{path} is a checkpoint of another model: its {key} is {found.get(key)}, "
                f"this run's is {wanted}. Start a run of its own, or remove the file."
            )
    return checkpoint


def copy(source: Path, target: Path) -> None:
    """Copy a checkpoint, whole or not at all."""
    with atomic_write(target) as part:
        shutil.copyfile(source, part)


@contextmanager
def pretraining_lock(cached: Path) -> Iterator[None]:
    """Of runs that share a pre-training and begin at once, one trains and the others wait."""
    lock = FileLock(cached.with_suffix(".lock"))
    patience = 0
    while not distributed.broadcast_object(ranks.is_rank_zero() and _acquired(lock, patience)):
        if not patience:
            print(f"waiting for {cached}, which another run trains")
        patience = POLL
    try:
        yield
    finally:
        lock.release()


def _acquired(lock: FileLock, patience: float) -> bool:
    folder = Path(lock.lock_file).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=patience)
    except Timeout:
        return False
    except OSError as error:
        raise UserError(
            f"cache_dir={folder} cannot be written to ({error.strerror}). Name another."
        ) from None
    return True
