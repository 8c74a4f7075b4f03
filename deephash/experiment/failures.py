"""What stops a run and a user can mend: a full disk, a folder that is read-only, a small GPU."""

import errno
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deephash.core.errors import UserError
from deephash.core.program import resume_hint

OF_THE_DISK = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
}
TORCH_REFUSES = "overflow|in-place|support"  # other errors in torch.optim are of a damaged state


@contextmanager
def explain_failures(run_dir: Path, arguments: str = "") -> Iterator[None]:
    """Explain errors of disk and memory, and what libraries refuse in the midst of a training.

    Args:
        run_dir: of the run.
        arguments: that its command to resume needs.

    Raises:
        UserError: in place of these errors.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        raise UserError(
            f"{error.filename or run_dir} cannot be written to: {error.strerror}. Free some space, "
            f"or change what is there.{resume_hint(run_dir, arguments, 'Then continue')}"
        ) from None
    except Exception as error:
        problem = _explain_memory(error, run_dir, arguments) or _explain_refusal(error)
        if not problem:
            raise
        raise UserError(problem) from error


def _explain_memory(error: Exception, run_dir: Path, arguments: str) -> str:
    if not isinstance(error, RuntimeError):
        return ""
    import torch  # takes seconds, and is there where it raised this

    if not isinstance(error, torch.OutOfMemoryError):
        return ""
    return (
        f"the GPU's memory is too small: {str(error).partition('.')[0]}. Lower "
        "training.<phase>.batch_size or evaluation.batch_size in a new run."
        + resume_hint(
            run_dir,
            f"trainer=ddp {arguments}".rstrip(),
            "Or share the batches among several GPUs",
        )
    )


def _explain_refusal(error: Exception) -> str:
    """What libraries refuse, but only a training shows; empty for other errors."""
    frames = [Path(frame.filename).parts for frame in traceback.extract_tb(error.__traceback__)]
    last, reason = frames[-1], " ".join(str(error).split()).rstrip(".")
    is_misuse = isinstance(error, ValueError) or "Misconfiguration" in type(error).__name__
    if is_misuse and not {"pytorch_lightning", "lightning_fabric"}.isdisjoint(last):
        return f"trainer: Lightning refuses its settings: {reason}."
    if last[-3:-1] == ("torch", "optim") and (
        isinstance(error, ValueError)
        or (isinstance(error, RuntimeError | AssertionError) and re.search(TORCH_REFUSES, reason))
    ):
        return f"training.<phase>.optimizer: torch refuses its settings: {reason}."
    if isinstance(error, AssertionError) and any("timm" in parts for parts in frames):
        return f"backbone: {reason}. Set backbone.resize to the size that it takes."
    if isinstance(error, RuntimeError) and "returned nan values" in reason:
        return (
            f"trainer.detect_anomaly=true: {reason}. Lower training.<phase>.optimizer.lr, or "
            "change the settings of the method."
        )
    return ""
