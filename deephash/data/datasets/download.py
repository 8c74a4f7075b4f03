"""Downloading the files of public data sets that are not present, and unpacking them."""

import gzip
import logging
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from deephash.core.errors import UserError
from deephash.core.io import atomic_write
from deephash.data.files.names import escape_undecodable

logger = logging.getLogger(__name__)


def ensure_downloaded(
    name: str,
    data_dir: Path,
    subfolder: str,
    files: Sequence[str],
    url: str,
    download: Callable[[], object],
) -> None:
    """Call `download` unless all files are present; of several processes, one downloads.

    Args:
        name: of the data set.
        data_dir: where data sets lie.
        subfolder: of `data_dir`, that holds the files.
        files: their names.
        url: where they can be downloaded by hand.
        download: downloads the data set, and shows its progress.

    Raises:
        UserError: files are missing and the download failed.
    """
    folder = data_dir / subfolder

    def find_missing() -> list[str]:
        return [file for file in files if not (folder / file).is_file()]

    missing = ", ".join(find_missing())
    if not missing:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock"):
            if find_missing():
                shown_folder = escape_undecodable(str(folder))
                logger.info("downloading %s: %s does not hold %s", name, shown_folder, missing)
                download()
    except (OSError, RuntimeError) as error:
        lines = str(error).strip().splitlines()
        reason = lines[-1] if lines else type(error).__name__
        raise UserError(
            f"dataset={name}: {folder.absolute()} does not hold {missing}, and downloading them "
            f"failed: {reason}. Unpack them there, from {url}, or set data_dir to the folder that "
            f"holds {subfolder}/. dataset=digits needs no download."
        ) from None


def unpack_idx(folder: Path) -> None:
    """Unpack the gzipped files of MNIST's format in a folder, each beside itself.

    Raises:
        UserError: one cannot be unpacked.
    """
    for packed in sorted(folder.glob("*-ubyte.gz")):
        target = packed.with_suffix("")
        if target.exists():
            continue
        try:
            with gzip.open(packed) as source, atomic_write(target) as path, path.open("wb") as file:
                shutil.copyfileobj(source, file)
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or "it is damaged"
            raise UserError(
                f"{packed} cannot be unpacked beside itself: {reason}. Unpack it yourself, or "
                "delete it, and it is downloaded again."
            ) from None
