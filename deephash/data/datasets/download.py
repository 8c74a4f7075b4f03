"""Files of a public data set: used where they lie, else downloaded."""

from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from deephash.core.errors import UserError


def ensure_downloaded(
    name: str, folder: Path, files: Sequence[str], download: Callable[[], object]
) -> None:
    """Call `download`, which shows a progress bar, unless all `files` lie in `folder`.

    Raises:
        UserError: a file is missing and cannot be had.
    """

    def missing() -> list[str]:
        return [file for file in files if not (folder / file).is_file()]

    if not missing():
        return
    lacking = ", ".join(missing())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock"):  # other runs and processes may want them as well
            if missing():
                print(f"dataset={name}: {folder} lacks {lacking}; downloading.")
                download()
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"dataset={name}: {lacking} not found in {folder}, and the download failed "
            f"({reason}). Put the files there, name their folder with data_dir=..., "
            "or use dataset=digits, which needs no download."
        ) from None
