"""Finished pre-trainings, shared by runs through a cache folder."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from deephash.core.distributed import broadcast_object
from deephash.core.errors import UserError
from deephash.core.instantiate import without_import_paths
from deephash.core.io import remove_partial_files
from deephash.core.ranks import is_rank_zero
from deephash.training.settings import PhaseSettings

logger = logging.getLogger(__name__)

POLL_SECONDS = 60  # between two looks at the lock; DDP gives up a collective after half an hour


@dataclass(frozen=True)
class PretrainingCache:
    """Where finished pre-trainings lie, and what determines those of this run.

    Attributes:
        folder: of the checkpoints.
        determinants: plain values that, with the settings of the phases so far, determine a
            pre-training: data, split, augmentation, backbone, seed, trainer, versions and code.
    """

    folder: Path
    determinants: Mapping[str, Any]

    def path(self, phases: Mapping[str, PhaseSettings]) -> Path:
        """The checkpoint after these phases.

        Args:
            phases: from the first to the last that was trained, by name.
        """
        settings = {name: phase.model_dump() for name, phase in phases.items()}
        values = without_import_paths([dict(self.determinants), settings])
        digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
        return self.folder / f"{list(phases)[-1]}-{digest.hexdigest()[:16]}.ckpt"


@contextmanager
def pretraining_lock(checkpoint: Path) -> Iterator[None]:
    """Of several runs that share a pre-training and start together, one trains and others wait.

    What others left half-written there is removed. A folder that cannot be written to needs no
    lock where it has the checkpoint.

    Raises:
        UserError: the folder of the checkpoint cannot be written to, and has no checkpoint.
    """
    lock = FileLock(checkpoint.with_suffix(".lock"))
    timeout = 0
    while not broadcast_object(is_rank_zero() and _acquire(lock, timeout, checkpoint)):
        if not timeout:
            logger.info("waiting for %s, which another run trains", checkpoint)
        timeout = POLL_SECONDS
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, timeout: float, checkpoint: Path) -> bool:
    folder = checkpoint.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout)
        remove_partial_files(folder, f"{checkpoint.stem}.*")
    except Timeout:
        return False
    except OSError as error:
        if checkpoint.is_file():
            return True
        raise UserError(
            f"cache_dir={folder} cannot be written to ({error.strerror}). Name another folder."
        ) from None
    return True
