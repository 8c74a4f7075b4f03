"""Checkpoints: read, held to the model, shared by runs."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from deephash import processes
from deephash.errors import UserError
from deephash.files import written_whole


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
        if found.get(key) != wanted:
            raise UserError(
                f"{path} is a checkpoint of another model: its {key} is {found.get(key)}, "
                f"this run's is {wanted}. Start a run of its own, or remove the file."
            )
    return checkpoint


def copy(source: Path, target: Path) -> None:
    """Copy a checkpoint, whole or not at all."""
    with written_whole(target) as part:
        shutil.copyfile(source, part)


@contextmanager
def one_run_at_a_time(cached: Path) -> Iterator[None]:
    """Of runs that share a pre-training and begin at once, one trains and the others wait."""
    if not processes.is_first():
        yield
        return
    lock = FileLock(cached.with_suffix(".lock"))
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for {cached}, which another run trains")
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"cache_dir={cached.parent} cannot be written to ({error.strerror}). Name another."
        ) from None
    try:
        yield
    finally:
        lock.release()
