"""Where images of one's own lie. Nothing heavy is imported here: the answer must come at once."""

import os
from pathlib import Path
from typing import Any

from deephash.core.errors import UserError
from deephash.data.files.tables import SUFFIXES


def check_source(path: Any, root: Any) -> None:
    """Refuse a folder or list of images that is not there.

    Args:
        path: `dataset.path`; what is no text is refused elsewhere.
        root: `dataset.root`, the folder that the paths in a list are relative to, or None.

    Raises:
        UserError: there is no such folder or list, or a file is no list.
    """
    wanted = f"a folder of class folders, or a list ({', '.join(SUFFIXES)})"
    if isinstance(path, str) and not os.path.exists(path):
        home = " '~' is not replaced: write $HOME." * path.startswith("~/")
        raise UserError(
            f"dataset.path={path}: there is no such folder or list.{home} Set dataset.path to "
            f"{wanted}."
        )
    is_file = isinstance(path, str) and not os.path.isdir(path)
    if is_file and Path(path).suffix.lower() not in SUFFIXES:
        raise UserError(f"dataset.path={path}: this is not a list. Give {wanted}.")
    if isinstance(root, str) and not os.path.isdir(root):
        raise UserError(
            f"dataset.root={root}: there is no such folder. Name the one that the paths in the "
            "list are relative to."
        )
