"""What stops a run and a user can mend: a full disk, a folder that is read-only, a small GPU."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deephash.core.errors import UserError
from deephash.core.program import resume_command
from deephash.experiment.run_dir import CONFIG

OF_THE_DISK = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
}


@contextmanager
def explain_failures(run_dir: Path, arguments: str = "") -> Iterator[None]:
    """Explain errors of disk and memory.

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
        hint = f" Then continue: {resume_command(run_dir, arguments)}"
        raise UserError(
            f"{error.filename or run_dir} cannot be written to: {error.strerror}. Free some space, "
            "or change what is there." + (hint if (run_dir / CONFIG).is_file() else "")
        ) from None
    except RuntimeError as error:
        import torch  # takes seconds, and is there where it raised this

        if not isinstance(error, torch.OutOfMemoryError):
            raise
        raise UserError(
            f"the GPU's memory is too small: {str(error).partition('.')[0]}. Lower "
            "training.<phase>.batch_size or evaluation.batch_size in a new run, or share the "
            "batches among several GPUs: "
            + resume_command(run_dir, f"trainer=ddp {arguments}".rstrip())
        ) from None
