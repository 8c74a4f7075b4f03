"""Labels as text, and their encoding as class indices or multi-hot labels."""

import ast
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError
from deephash.data.files.tables import Table

NEEDS_LABELS = (
    "Training needs labels; images without them can be checked for duplicates, by lists: deephash "
    "data audit --query QUERIES.txt --database DATABASE.txt."
)
# Missing values, as pandas reads and writes them.
MISSING = {
    "",
    "nan",
    "NaN",
    "-nan",
    "-NaN",
    "None",
    "null",
    "NULL",
    "NA",
    "N/A",
    "n/a",
    "<NA>",
    "#N/A",
}
TRUE, FALSE = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}
WHOLE_FLOAT = re.compile(r"-?\d+\.0+")
ADJACENT_STRINGS = re.compile(r"""['"]\s+['"]""")
SEPARATORS = (";", ",", "|", "/", "+", "&", " ")
# Labels look composed if there are so many classes, of so few images on average.
MIN_SUSPICIOUS_CLASSES, MAX_IMAGES_PER_CLASS = 20, 10


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


def read_class_names(
    table: Table, column: int, label_separator: str | None
) -> list[tuple[str, ...]]:
    """Class names of each row, from one column.

    A cell holds one name, several with the separator between them, or a list in the syntax of
    Python or JSON. An empty cell, or one that pandas takes for a missing value such as `nan` or
    `None`, has no name. Whole numbers written as floats, 3.0, lose the fraction if all are.

    Args:
        table: the table.
        column: its column of labels.
        label_separator: separates several names; None takes each cell as one name.

    Raises:
        UserError: a cell looks like a list but cannot be read as one, cells are vectors of 0 and 1,
            or cells seem to hold several names with another separator.
    """
    names_of_rows: list[tuple[str, ...]] = []
    for row, cell in enumerate(table.column(column)):
        cell = cell.strip()
        if cell in MISSING:
            names_of_rows.append(())
        elif label_separator is None:
            names_of_rows.append((cell,))
        else:
            place = table.describe_cell(row, column)
            names = _read_list(cell, place)
            names_of_rows.append(split_labels(cell, label_separator) if names is None else names)
    if all(WHOLE_FLOAT.fullmatch(name) for names in names_of_rows for name in names):
        names_of_rows = [tuple(n.partition(".")[0] for n in names) for names in names_of_rows]
    if label_separator is not None:
        _check_no_vectors(table, column, names_of_rows)
        _check_no_other_separator(table, column, names_of_rows)
    return names_of_rows


def _read_list(cell: str, place: str) -> tuple[str, ...] | None:
    """The elements of a list in the syntax of Python or JSON; None if the cell is no list."""
    if cell[0] + cell[-1] not in ("[]", "()", "{}"):
        return None
    try:
        if ADJACENT_STRINGS.search(cell):  # as numpy prints arrays; Python would join the strings
            raise ValueError
        values = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        values = None
    if not isinstance(values, list | tuple | set):
        if cell[0] == "(":
            return None  # a name in parentheses
        raise UserError(
            f"{place}: {cell} looks like a list of labels, but is none in the syntax of Python or "
            "JSON, such as ['a', 'b']. If it is the name of a class, set "
            "dataset.label_separator=null."
        )
    return tuple(str(value).strip() for value in values)


def _check_no_vectors(table: Table, column: int, names_of_rows: list[tuple[str, ...]]) -> None:
    """Refuse cells such as 0,1,0: they would be the classes '0' and '1'."""
    separated = [
        re.split("[^0-9]+", names[0]) if len(names) == 1 else list(names) for names in names_of_rows
    ]
    row = next((row for row, names in enumerate(separated) if len(names) > 1), None)
    if row is not None and {name for names in separated for name in names} <= {"0", "1"}:
        raise UserError(
            f"{table.describe_cell(row, column)}: '{table.rows[row][column]}' looks like a vector "
            "of 0 and 1. Give a column of 0 and 1 for each class, with its name in the first line."
        )


def _check_no_other_separator(
    table: Table, column: int, names_of_rows: list[tuple[str, ...]]
) -> None:
    """Refuse labels that look composed: many classes of few images, made of fewer parts."""
    counts = Counter(name for names in names_of_rows for name in names)
    if len(counts) < MIN_SUSPICIOUS_CLASSES or counts.total() > MAX_IMAGES_PER_CLASS * len(counts):
        return
    for separator in SEPARATORS:
        composed = [name for name in counts if separator in name.strip(separator)]
        parts = {part.strip() for name in counts for part in name.split(separator)}
        if 3 * len(composed) >= len(counts) and 2 * len(parts - {""}) <= len(counts):
            row = next(r for r, names in enumerate(names_of_rows) if composed[0] in names)
            raise UserError(
                f"{table.describe_cell(row, column)}: '{composed[0]}' seems to hold several "
                f"labels: there are {len(counts):,} different ones for {len(names_of_rows):,} "
                f"images, made of {len(parts - {''}):,} parts. Set "
                f"'dataset.label_separator=\"{separator}\"', or dataset.label_separator=null if "
                "each is one class."
            )


def read_multi_hot(table: Table, columns: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Labels from a column of 0 and 1 per class, uint8 (n, classes).

    1.0, True and yes are 1, and 0.0, False and no are 0, in upper or lower case. A row with a
    missing value has no labels.

    Raises:
        UserError: a value is something else.
    """
    labels = np.zeros((len(table.rows), len(columns)), dtype=np.uint8)
    is_missing = np.zeros(len(table.rows), dtype=bool)
    for label, column in enumerate(columns):
        cells = [cell.strip() for cell in table.column(column)]
        for cell in set(cells) - MISSING:
            if cell.lower() not in TRUE | FALSE:
                place = table.describe_cell(cells.index(cell), column)
                raise UserError(
                    f"{place}: '{cell}' is neither 0 nor 1. Several columns of labels hold one "
                    "class each; otherwise give a single column of labels."
                )
        labels[:, label] = [cell.lower() in TRUE for cell in cells]
        is_missing |= [cell in MISSING for cell in cells]
    labels[is_missing] = 0
    return labels


def split_labels(cell: str, label_separator: str) -> tuple[str, ...]:
    """Split a cell into class names.

    >>> split_labels("sea; sky", ";")
    ('sea', 'sky')
    """
    names = (name.strip() for name in cell.split(label_separator))
    return tuple(name for name in names if name)


def normalize_name(name: str) -> str:
    """Compose accents: some systems write an é as one character, others as two."""
    return unicodedata.normalize("NFC", name)
