"""Files that a list names, and what lies in a folder."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deephash.core.errors import UserError
from deephash.data.files.name_index import NameIndex
from deephash.data.files.names import escape_undecodable, is_system_entry

logger = logging.getLogger(__name__)


def find_listed_files(
    source: Path, root: Path, places: Sequence[str], spellings: Sequence[Sequence[str]]
) -> tuple[list[str], str]:
    """Find the files that a list names.

    Names are paths relative to `root`. Only if a file is missing, the folder is searched: for
    another spelling of the name and, if none of the files is there, for other leading folders.
    Files that the list names itself are not taken for others.

    Args:
        source: the list.
        root: folder that the names are relative to.
        places: file and line of each name.
        spellings: readings of each name, see `NameIndex.find`; the last is the usual one.

    Returns:
        Paths, that of the usual reading where there is no file; and a sentence that explains the
        first missing file, empty if none is missing.

    Raises:
        UserError: a name fits several files.
    """
    paths = [_join(root, readings) for readings in spellings]
    missing = [row for row, path in enumerate(paths) if not os.path.isfile(path)]
    if not missing:
        return paths, ""
    none_found = len(missing) == len(paths)
    listed = {os.path.normpath(path) for path in paths}
    files = list(walk_files(root, lambda error: None))
    unlisted = [name for name in files if os.path.normpath(os.path.join(root, name)) not in listed]
    index = NameIndex(unlisted, by_suffix=none_found)
    rows = index.find_all(
        source, [places[row] for row in missing], [spellings[row] for row in missing]
    )
    moved = ""
    for row, found in zip(missing, rows, strict=True):
        if found is not None:
            paths[row] = os.path.join(root, unlisted[found])
            name = spellings[row][-1]
            if name.count("/") != unlisted[found].count("/"):
                moved = moved or f"{name} is {unlisted[found]}"
    if moved:
        told = f"{source}: the paths differ from those in {root} in leading folders: {moved}"
        logger.warning("%s", escape_undecodable(told))
    still_missing = [row for row, found in zip(missing, rows, strict=True) if found is None]
    if not still_missing:
        return paths, ""
    first = spellings[still_missing[0]][0]
    hint = NameIndex(files).explain_missing(first) if files else f"{root} holds no files."
    return paths, hint


def _join(root: Path, readings: Sequence[str]) -> str:
    paths = [os.path.join(root, name) for name in readings]
    return next((path for path in paths if os.path.isfile(path)), paths[-1])


def walk_files(folder: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[str]:
    """Relative paths of all files, sorted; without hidden ones and those that systems leave.

    Links to folders are followed, unless they lead back to a folder above them.

    Args:
        folder: where to begin.
        on_error: what is done with a folder that cannot be read; None to raise a `UserError`.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}.")

    for parent, subfolders, files in os.walk(folder, onerror=on_error or refuse, followlinks=True):
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not is_system_entry(name) and not _leads_back(Path(parent, name))
        )
        relative_parent = Path(parent).relative_to(folder)
        names = sorted(name for name in files if not is_system_entry(name))
        yield from ((relative_parent / name).as_posix() for name in names)


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to one of its parents."""
    return folder.is_symlink() and os.path.realpath(folder) in map(os.path.realpath, folder.parents)
