"""Labels as text, and their encoding as class indices or multi-hot labels."""

import ast
import json
import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError
from deephash.core.program import quote_in_shell
from deephash.data.files.label_checks import (
    FALSE,
    TRUE,
    check_no_other_separator,
    check_no_vectors,
    shorten,
)
from deephash.data.files.names import escape_undecodable
from deephash.data.files.tables import Table, decode_labels

NEEDS_LABELS = (
    "Training needs labels; images without them can be checked for duplicates, by lists: deephash "
    "data audit --query QUERIES.txt --database DATABASE.txt."
)
# Missing values, as pandas reads and writes them.
MISSING = {
    "", "nan", "NaN", "-nan", "-NaN", "None", "null", "NULL", "NA", "N/A", "n/a", "<NA>", "#NA",
    "#N/A", "#N/A N/A", "NaT", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
}  # fmt: skip
LABEL_COLUMNS = {"label", "labels", "class", "category"}
WHOLE_NUMBER = re.compile(r"-?\d+(\.0+)?")
ADJACENT_STRINGS = re.compile(r"""['"]\s+['"]""")
PRINTED_OBJECT = re.compile(r"\w+\(([\[{(].*)?\)", re.DOTALL)  # such as array(['a']), set()

logger = logging.getLogger(__name__)


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
    for row, cell in enumerate(decode_labels(table.source, table.column(column))):
        cell = cell.strip()
        if cell in MISSING:
            names_of_rows.append(())
        elif label_separator is None:
            names_of_rows.append((cell,))
        else:
            place = table.describe_cell(row, column)
            names = _read_list(cell, place)
            names_of_rows.append(split_labels(cell, label_separator) if names is None else names)
    if all(WHOLE_NUMBER.fullmatch(name) for names in names_of_rows for name in names):
        names_of_rows = [tuple(n.partition(".")[0] for n in names) for names in names_of_rows]
        _warn_of_negative_class(table, names_of_rows)
    if label_separator is not None:
        check_no_vectors(table, column, names_of_rows)
        check_no_other_separator(table, column, names_of_rows, label_separator)
    return names_of_rows


def _read_list(cell: str, place: str) -> tuple[str, ...] | None:
    """The elements of a list in the syntax of Python or JSON; None if the cell is no list."""
    if cell[0] + cell[-1] not in ("[]", "()", "{}") and not PRINTED_OBJECT.fullmatch(cell):
        return None
    values = _parse_list(cell)
    if values is None or any(isinstance(value, list | tuple | set | dict) for value in values):
        if cell[0] == "(":
            return None  # a name in parentheses
        raise UserError(
            f"{place}: {shorten(cell)} looks like a list of labels, but is none in the syntax of "
            "Python or JSON, such as ['a', 'b']. If it is the name of a class, set "
            "dataset.label_separator=null."
        )
    return tuple(name for value in values if (name := str(value).strip()) not in MISSING)


def _parse_list(cell: str) -> list[Any] | tuple[Any, ...] | set[Any] | None:
    """A list in the syntax of JSON or Python; None if the cell is neither."""
    for parse in (json.loads, ast.literal_eval):  # Python takes the escapes of JSON for others
        if parse is ast.literal_eval and ADJACENT_STRINGS.search(cell):
            return None  # as numpy prints arrays; Python would join the strings
        try:
            values = parse(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(values, list | tuple | set):
            return values
    return None


def _warn_of_negative_class(table: Table, names_of_rows: list[tuple[str, ...]]) -> None:
    """Warn of -1 among other whole numbers: in many sets it stands for no label."""
    counts = Counter(name for names in names_of_rows for name in names)
    if counts["-1"] and len(counts) > 2 and not any(n[0] == "-" for n in counts if n != "-1"):
        logger.warning(
            "%s: -1 is a class of %s images; if it means that they have no label, leave its cells "
            "empty",
            escape_undecodable(str(table.source)),
            f"{counts['-1']:,}",
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
        for cell in dict.fromkeys(cells):
            if cell in MISSING:
                continue
            if cell.lower() not in TRUE | FALSE:
                place = table.describe_cell(cells.index(cell), column)
                names = [table.columns[i] for i in columns]
                named = [name for name in names if name.lower() in LABEL_COLUMNS]
                name = (named or [table.columns[column]])[0]
                raise UserError(
                    f"{place}: '{cell}' is neither 0 nor 1. Several columns of labels hold one "
                    "class each; if one alone holds the labels, set "
                    f"{quote_in_shell('dataset.label_columns', name)}."
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
    return tuple(name for name in names if name not in MISSING)


def normalize_name(name: str) -> str:
    """Compose accents: some systems write an é as one character, others as two."""
    return unicodedata.normalize("NFC", name)


def find_similar_names(names: Sequence[str]) -> list[list[str]]:
    """Groups of names that differ in letter case, blanks or invisible characters alone.

    >>> find_similar_names(["Cat", "cat", "dog"])
    [['Cat', 'cat']]
    """
    similar: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        visible = (c for c in name.casefold() if unicodedata.category(c) != "Cf")
        similar["".join("".join(visible).split())].append(name)
    return [group for group in similar.values() if len(group) > 1]
