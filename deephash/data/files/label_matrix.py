"""Labels in a file of their own: a row of 0 and 1 per image, as text, .npy, .npz or .mat."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError
from deephash.data.files.split_lists import read_lines

NEEDS_SCIPY = "reading .mat needs scipy (pip install scipy); or save the labels as .npy"


def read_label_matrix(path: Path, image_count: int, list_name: str) -> list[list[str]]:
    """Read the labels of the images of a list.

    Args:
        path: text with values separated by blanks or commas, .npy, .npz, or .mat of MATLAB up to
            7.2. Of several arrays, one has a row or column for each image.
        image_count: how many images the list names.
        list_name: its name, for error messages.

    Returns:
        A row of values for each image.

    Raises:
        UserError: the file cannot be read, does not have a row for each image, or an array holds
            other values than 0 and 1.
    """
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz", ".mat"):
        arrays = _read_mat(path) if suffix == ".mat" else _read_npy(path)
        array = _choose_array(path, arrays, image_count)
        # Images may be columns, as MATLAB's users keep them.
        is_transposed = array.ndim == 2 and array.shape[0] != image_count == array.shape[1]
        shape = array.shape[::-1] if is_transposed else array.shape
        _check_shape(path, shape, image_count, list_name)
        is_other = (array != 0) & (array != 1)
        if is_other.any():
            row, column = np.argwhere(is_other)[0]
            raise UserError(
                f"{path} holds {array[row, column]} in row {row}, column {column}, from 0. Give "
                "labels of 0 and 1."
            )
        labels = (array == 1).astype(np.uint8).astype(str)
        return (labels.T if is_transposed else labels).tolist()
    rows = [line.replace(",", " ").split() for _, line in read_lines(path)]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise UserError(f"{path}: its lines have {min(widths)} to {max(widths)} values.")
    _check_shape(path, (len(rows), *(widths or {0})), image_count, list_name)
    return rows


def _check_shape(path: Path, shape: tuple[int, ...], image_count: int, list_name: str) -> None:
    if len(shape) < 2:
        found = "one column only" if shape else "a single value"
        raise UserError(f"{path} holds {found}. Give a row of 0 and 1 for each image.")
    if len(shape) != 2 or shape[0] != image_count:
        raise UserError(
            f"{path} holds {' x '.join(map(str, shape))} values, but {list_name} names "
            f"{image_count:,} images. Give a row of 0 and 1 for each image."
        )


def _read_npy(path: Path) -> dict[str, Any]:
    try:
        loaded = np.load(path, allow_pickle=False)
        return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        reason = getattr(error, "strerror", None) or "not an array of numbers as NumPy writes it"
        raise UserError(f"{path} cannot be read: {reason}.") from None


def _read_mat(path: Path) -> dict[str, Any]:
    try:
        from scipy.io import loadmat  # type: ignore[import-untyped]
    except ImportError:
        raise UserError(f"{path}: {NEEDS_SCIPY}.") from None
    try:
        return {k: v for k, v in loadmat(path).items() if not k.startswith("__")}
    except NotImplementedError:
        raise UserError(
            f"{path} is of MATLAB 7.3, which is not read. Save it with -v7, or as .npy."
        ) from None
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "not a file of MATLAB"
        raise UserError(f"{path} cannot be read: {reason}.") from None


def _choose_array(
    path: Path, variables: Mapping[str, Any], image_count: int
) -> npt.NDArray[np.generic]:
    """The only array, or the one matrix with a row or column for each image."""
    arrays = {k: v.toarray() if hasattr(v, "toarray") else v for k, v in variables.items()}
    if len(arrays) == 1:
        (array,) = arrays.values()
        if array.dtype.kind not in "biuf":
            raise UserError(f"{path} does not hold an array of numbers.")
        return array
    fitting = [
        name
        for name, array in arrays.items()
        if array.ndim == 2 and array.dtype.kind in "biuf" and image_count in array.shape
    ]
    if len(fitting) != 1:
        shapes = ", ".join(f"{k} {' x '.join(map(str, v.shape))}" for k, v in arrays.items())
        raise UserError(
            f"{path} holds {len(fitting)} matrices with a row for each of {image_count:,} images "
            f"({shapes}). Save one matrix of 0 and 1."
        )
    return arrays[fitting[0]]
