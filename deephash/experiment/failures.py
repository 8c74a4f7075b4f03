"""What stops a run and a user can mend: a full disk, a folder that is read-only, a small GPU."""

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deephash.core.errors import UserError
from deephash.core.program import resume_command, resume_hint

OF_THE_DISK = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
}


@contextmanager
def explain_failures(run_dir: Path, arguments: str = "") -> Iterator[None]:
    """Explain errors of disk and memory, and what Lightning finds at the start of a phase.

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
    except RuntimeError as error:
        import torch  # takes seconds, and is there where it raised this

        if "returned nan values" in str(error):
            raise UserError(
                f"trainer.detect_anomaly=true: {str(error).rstrip('.')}. Lower "
                "training.<phase>.optimizer.lr, or change the settings of the method."
            ) from error
        if not isinstance(error, torch.OutOfMemoryError):
            raise
        raise UserError(
            f"the GPU's memory is too small: {str(error).partition('.')[0]}. Lower "
            "training.<phase>.batch_size or evaluation.batch_size in a new run, or share the "
            "batches among several GPUs: "
            + resume_command(run_dir, f"trainer=ddp {arguments}".rstrip())
        ) from None
    except Exception as error:
        if not _is_of_lightning(error):
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"trainer: Lightning refuses its settings: {reason}.") from error


def _is_of_lightning(error: Exception) -> bool:
    """Whether Lightning itself found that its settings do not fit the data."""
    is_refusal = isinstance(error, ValueError) or "Misconfiguration" in type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    packages = {"pytorch_lightning", "lightning_fabric"}
    return is_refusal and not packages.isdisjoint(Path(frames[-1].filename).parts)
