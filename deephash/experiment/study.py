"""The file of a search for settings: opened by Optuna, mended where a process was killed."""

import json
import os
from pathlib import Path
from typing import Any

from deephash.core.errors import UserError


def open_study(path: Path) -> tuple[Any, Any]:
    """The storage and the study in a file, which is made where there is none.

    Args:
        path: of the file; other processes may have it open.

    Raises:
        UserError: Optuna is not installed, the file is damaged, or it cannot be written to.
    """
    try:
        import optuna  # only a search needs it
        from optuna.storages.journal import (
            JournalFileBackend,
            JournalFileSymlinkLock,
            JournalStorage,
        )
    except ImportError:
        raise UserError("tuning=optuna needs a package: pip install 'deephash[tuning]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The lock is a link to this path. A relative one would lead nowhere, and the lock of a killed
    # process would never expire.
    name = str(path.absolute())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = JournalFileSymlinkLock(name)
        lock.acquire()
        try:
            _mend(path)
        finally:
            lock.release()
        storage = JournalStorage(JournalFileBackend(name, lock))
        study = optuna.create_study(
            storage=storage, study_name="search", direction="maximize", load_if_exists=True
        )
    except OSError as error:
        raise UserError(
            f"run_dir={path.parent} cannot hold a search ({error.filename or path}: "
            f"{error.strerror}). Name another folder."
        ) from None
    except UserError:
        raise
    except Exception as error:  # of Optuna, about values that are none of its own
        raise _damage_error(path, " ".join(f"{type(error).__name__}: {error}".split())) from None
    return storage, study


def _mend(path: Path) -> None:
    """Remove what a process had written of a line when it was killed; the next would continue it.

    Args:
        path: of a file that no other process writes now.

    Raises:
        UserError: another line is damaged.
    """
    content = path.read_bytes() if path.exists() else b""
    *lines, rest = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            json.loads(line)["op_code"]
        except (ValueError, LookupError, TypeError):
            raise _damage_error(path, f"line {number} is none of Optuna's") from None
    if rest:
        with path.open("r+b") as file:
            file.truncate(len(content) - len(rest))
            os.fsync(file.fileno())


def _damage_error(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is damaged: {reason}. Remove its lines from there on, or name another run_dir."
    )
