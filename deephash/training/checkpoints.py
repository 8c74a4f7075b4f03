"""Checkpoints: written whole and sealed, and read only by the model that they belong to."""

import hashlib
import pickle
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from torch import Tensor

from deephash.core.distributed import broadcast_object
from deephash.core.errors import UserError
from deephash.core.instantiate import without_import_paths
from deephash.core.io import atomic_write, is_undamaged, seal_zip
from deephash.core.program import resume_command
from deephash.training.modules import PhaseModule

UNFINISHED = ".unfinished.ckpt"  # suffix of the checkpoint of a phase at work
CURVES = "Curves"  # key of the curves among the states of the callbacks
OF_A_TRAINING_AT_WORK = ("optimizer_states", "lr_schedulers", "loops", "epoch", "global_step")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its path and then moves it there; reads weights and plain values.

    Lightning's own writes to the temporary folder; from another file system moving is copying, and
    a process killed meanwhile loses the previous checkpoint, too. It reads whatever a pickle
    holds, and takes paths for URLs.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint, whole or not at all."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint, which this module's function has read before."""
        return torch.load(path, map_location=map_location, weights_only=True)


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint with a checksum, whole or not at all.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    with atomic_write(path) as part:
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # torch's, about what it could not write, Ctrl-C included
            cause = error.__context__
            if isinstance(cause, OSError | KeyboardInterrupt | SystemExit):
                raise cause from None
            raise
        seal_zip(part)


class CheckpointError(UserError):
    """A checkpoint that cannot be used.

    Args:
        path: of the file.
        reason: what is wrong with it, as the rest of a sentence that begins with its name.
        advice: what to do where it is that of a run.
    """

    def __init__(self, path: Path, reason: str, advice: str) -> None:
        super().__init__(f"{path} {reason}. {advice}")
        self.reason = reason


def load_checkpoint(path: Path, module: PhaseModule, *, is_finished: bool = True) -> dict[str, Any]:
    """Load the weights of a checkpoint into the module that it belongs to.

    Args:
        path: of the file.
        module: of the same identity, trained from the same weights.
        is_finished: whether the phase is; one that is not goes on by the state of its optimizer.

    Returns:
        The whole checkpoint.

    Raises:
        CheckpointError: it cannot be read, is damaged, or belongs to another model.
    """
    checkpoint = _read(path)
    if problem := _find_missing(checkpoint, () if is_finished else OF_A_TRAINING_AT_WORK):
        raise _corrupt(path, problem)
    _check_identity(path, checkpoint, module)
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(
            path,
            "does not fit the code of backbone or method, which has changed: "
            + " ".join(str(error).split()).rstrip("."),
            "Undo the change, or start a new run.",
        ) from None
    if not is_finished:
        try:
            optimizer = module.make_optimizer(module.trained_parameters())
            optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        except (LookupError, ValueError, TypeError, AttributeError):
            raise _corrupt(path, "the state of its optimizer is that of another") from None
    return checkpoint


def _read(path: Path) -> Any:
    try:
        if is_undamaged(path):
            return torch.load(path, map_location="cpu", weights_only=True)
        reason = "its checksum differs"
    except pickle.UnpicklingError:  # torch's advice is to load it with code and all
        reason = "it holds more than weights and plain values"
    except Exception as error:  # a damaged pickle may raise anything
        reason = f"it cannot be read: {type(error).__name__}"
    raise _corrupt(path, reason)


def _corrupt(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        path,
        f"is corrupt ({reason})",
        "Remove it and the checkpoints of later phases, and train these again by: "
        + resume_command(path.parent.parent),
    )


def _find_missing(checkpoint: Any, keys: tuple[str, ...]) -> str | None:
    """What a checkpoint lacks to be one, in words; None where it lacks nothing."""
    if not isinstance(checkpoint, dict):
        return f"it holds a {type(checkpoint).__name__}"
    for key in ("state_dict", "callbacks", *keys):
        if key not in checkpoint:
            return f"it has no {key}"
    try:
        for row in checkpoint["callbacks"][CURVES]["rows"]:
            float(row["step"])
        dict(checkpoint["state_dict"]), dict(checkpoint.get("deephash", {}))
    except (LookupError, TypeError, ValueError):
        return "it has no curves or weights"
    return None


def _check_identity(path: Path, checkpoint: Mapping[str, Any], module: PhaseModule) -> None:
    """Refuse what belongs to another model, or was trained from other weights."""
    found = dict(checkpoint.get("deephash", {}))
    found.setdefault("settings", module.identity.get("settings"))  # earlier versions kept none
    for key, expected in module.identity.items():  # import paths are not compared
        if without_import_paths(found.get(key)) != without_import_paths(expected):
            raise CheckpointError(
                path,
                f"belongs to another model: its {key} is {found.get(key)}, that of this run is "
                f"{expected}",
                "Start a new run, or remove the file.",
            )
    trained_from = module.trained_from
    if checkpoint.get("trained_from", trained_from) != trained_from:  # 0.2 kept none
        raise CheckpointError(
            path,
            "was not trained from the checkpoint of the phase before, which has changed",
            "Put the old one back, or remove this one and those of later phases, and they are "
            "trained again.",
        )


def check_no_folders(checkpoints: Iterable[Path]) -> None:
    """Refuse folders where the checkpoints of phases are written.

    Raises:
        UserError: one is a folder.
    """
    for finished in checkpoints:
        for path in (finished, finished.with_suffix(UNFINISHED)):
            if path.is_dir():
                raise UserError(f"{path} is a folder, but a checkpoint is written there. Move it.")


def check_not_begun(later: Iterable[Path], missing: Path) -> None:
    """Refuse to train a phase again from which later ones have begun.

    Args:
        later: checkpoints of the later phases, when finished.
        missing: checkpoint of the phase.

    Raises:
        UserError: a later phase has left a checkpoint.
    """
    paths = [path for each in later for path in (each, each.with_suffix(UNFINISHED))]
    names = broadcast_object(", ".join(path.name for path in paths if path.is_file()))
    if names:
        raise UserError(
            f"{missing} is missing, and {names} beside it began from it. Put it back, or remove "
            f"{names}, too, and all are trained again."
        )


def weights_digest(path: Path) -> str:
    """SHA-256 of the values of all parameters and buffers in a checkpoint, in their order."""
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
