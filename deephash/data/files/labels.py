"""Labels as text, and their encoding as class indices or multi-hot labels."""

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError
from deephash.data.files.tables import Table


def encode_labels(
    names_of_rows: Sequence[tuple[str, ...]],
) -> tuple[npt.NDArray[np.integer], tuple[str, ...]]:
    """Encode class names as numbers.

    Args:
        names_of_rows: class names of each image.

    Returns:
        Class indices, int64 (n,), -1 for none; or uint8 multi-hot (n, classes) if an image has
        several. And the names of the classes.

    Example:
        >>> labels, classes = encode_labels([("cat",), ("cat", "dog")])
        >>> labels.tolist(), classes
        ([[1, 0], [1, 1]], ('cat', 'dog'))
    """
    names_of_rows = [tuple(map(normalize_name, names)) for names in names_of_rows]
    classes = sorted({name for names in names_of_rows for name in names})
    index = {name: position for position, name in enumerate(classes)}
    if max(map(len, names_of_rows)) <= 1:
        indices = [index[names[0]] if names else -1 for names in names_of_rows]
        return np.array(indices), tuple(classes)
    labels = np.zeros((len(names_of_rows), len(classes)), dtype=np.uint8)
    for row, names in enumerate(names_of_rows):
        labels[row, [index[name] for name in names]] = 1
    return labels, tuple(classes)


def read_multi_hot(table: Table, columns: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Labels from a column of 0 and 1 per class: (n, classes)."""
    labels = np.zeros((len(table.rows), len(columns)), dtype=np.uint8)
    for label, column in enumerate(columns):
        values = np.array([value.strip() for value in table.column(column)])
        labels[:, label] = values == "1"
        invalid_rows = np.flatnonzero((values != "0") & (values != "1"))
        if len(invalid_rows):
            row = int(invalid_rows[0])
            raise UserError(
                f"{table.describe_cell(row, column)}: '{values[row]}' is neither 0 nor 1. Several "
                "columns of labels hold one class each; otherwise give a single column of labels."
            )
    return labels


def split_labels(value: str, label_separator: str) -> tuple[str, ...]:
    """Split a value into class names.

    >>> split_labels("sea; sky", ";")
    ('sea', 'sky')
    """
    names = (name.strip() for name in value.split(label_separator))
    return tuple(name for name in names if name)


def normalize_name(name: str) -> str:
    """Compose accents: some systems write an é as one character, others as two."""
    return unicodedata.normalize("NFC", name)
