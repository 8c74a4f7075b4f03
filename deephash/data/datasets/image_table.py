"""A list of images with their labels: CSV, TSV, Parquet or plain text."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError
from deephash.data.datasets.class_folders import PARTS, ValAs, resolve_parts
from deephash.data.files.cleaning import Listing
from deephash.data.files.labels import (
    NEEDS_LABELS,
    encode_labels,
    normalize_name,
    read_class_names,
    read_multi_hot,
)
from deephash.data.files.listed_files import find_listed_files, walk_files
from deephash.data.files.names import fold_name, has_image_suffix, use_forward_slashes
from deephash.data.files.tables import Table

SPLIT_COLUMN = "split"


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what, by name; of plain text by number, from 0.

    Attributes:
        path: of the images' paths; None for the first one.
        labels: of the labels; None for all others.
        split: of the parts of an official split; None for the one named `split`, if there is one.
    """

    path: str | int | None
    labels: str | int | list[str] | list[int] | None
    split: str | int | None


def list_table(
    table: Table,
    root: Path,
    *,
    columns: Columns,
    label_separator: str | None,
    val_as: ValAs | None,
) -> Listing:
    """List the images of a table.

    Args:
        table: the table.
        root: folder that the paths are relative to.
        columns: which columns hold what.
        label_separator: between several labels in one cell.
        val_as: what rows of the part `val` are, see `resolve_parts`.

    Raises:
        UserError: the table has no rows, no such columns or no labels, or a value is invalid.
    """
    source = table.source
    if not table.rows:
        raise UserError(f"{source} names no image.")
    _check_repeated_names(table)
    path_column, label_columns, split_column = _choose_columns(table, columns)
    cells = table.column(path_column)
    spellings = [tuple(dict.fromkeys((cell, use_forward_slashes(cell)))) for cell in cells]
    _check_no_header(table, root)
    if columns.path is None:
        _check_path_column(table, root, path_column, of_files=True)
    places = [f"{source}, line {line}" for line in table.lines]
    paths, hint = find_listed_files(source, root, places, spellings)
    if hint and not any(map(os.path.isfile, paths)):
        _check_path_column(table, root, path_column)
        hint += f" Set dataset.root to the folder that the paths are relative to, now {root}."
    _check_header_of_text(table, path_column, paths[0])
    if not label_columns:
        raise UserError(
            f"{source} has no labels: add a column after that of the paths. {NEEDS_LABELS}"
        )
    is_test = np.zeros(len(table.rows), dtype=bool)
    is_used = np.ones(len(table.rows), dtype=bool)
    if split_column is not None:
        parts = _read_split_column(table, split_column, val_as)
        is_test, is_used = parts == "test", parts != "ignore"
    labels: npt.NDArray[np.integer]
    if len(label_columns) == 1:
        names = read_class_names(table, label_columns[0], label_separator)
        labels, classes = encode_labels(names)
    else:
        labels = read_multi_hot(table, label_columns)
        classes = tuple(normalize_name(table.columns[i]) for i in label_columns)
    rows = np.flatnonzero(is_used)
    return Listing(
        name=source.stem,
        source=source,
        ids=[use_forward_slashes(cells[row]) for row in rows],
        paths=[paths[row] for row in rows],
        labels=labels[rows],
        classes=classes,
        is_test=is_test[rows],
        missing_hint=hint,
    )


def _check_repeated_names(table: Table) -> None:
    names = [normalize_name(name) for name in table.columns]
    names = [SPLIT_COLUMN if name.lower() == SPLIT_COLUMN else name for name in names]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise UserError(f"{table.source} has two columns '{repeated[0]}'. Rename or remove one.")


def _choose_columns(table: Table, columns: Columns) -> tuple[int, list[int], int | None]:
    """Positions of the columns of the paths, the labels and the split."""
    path = 0 if columns.path is None else _find_column(table, columns.path, "path_column")
    if columns.split is not None:
        split: int | None = _find_column(table, columns.split, "split_column")
    else:
        named = [i for i, name in enumerate(table.columns) if name.lower() == SPLIT_COLUMN]
        split = next((i for i in named if i != path), None)
    if columns.labels is None:
        return path, [i for i in range(len(table.columns)) if i not in (path, split)], split
    chosen = columns.labels if isinstance(columns.labels, list) else [columns.labels]
    labels = [_find_column(table, name, "label_columns") for name in chosen]
    if columns.split is None and split in labels:
        split = None
    used = [path, *labels, *([] if split is None else [split])]
    if len(set(used)) < len(used):
        repeated = next(i for i in used if used.count(i) > 1)
        raise UserError(
            f"{table.source}: column '{table.columns[repeated]}' is chosen twice by "
            "dataset.path_column, dataset.label_columns and dataset.split_column."
        )
    return path, labels, split


def _find_column(table: Table, name: str | int, setting: str) -> int:
    wanted = normalize_name(str(name).strip())
    names = [normalize_name(column) for column in table.columns]
    for candidates in (names, [column.lower() for column in names]):
        key = wanted if candidates is names else wanted.lower()
        if candidates.count(key) == 1:
            return candidates.index(key)
    raise UserError(
        f"dataset.{setting}={name}: {table.source} has no such column, but "
        f"{', '.join(names[:10])}{', …' * (len(names) > 10)}."
    )


def _is_text(table: Table) -> bool:
    return table.source.suffix.lower() == ".txt"


def _check_no_header(table: Table, root: Path) -> None:
    """Refuse a table without column names, whose first line is an image."""
    first = table.columns[0]
    is_file = os.path.isfile(root / use_forward_slashes(first))
    if not _is_text(table) and (has_image_suffix(first) or is_file):
        raise UserError(
            f"{table.source}: the first line is an image, not column names. Insert a line of "
            "column names above it."
        )


def _check_header_of_text(table: Table, path_column: int, path: str) -> None:
    """Refuse plain text with column names."""
    first = table.rows[0][path_column]
    if _is_text(table) and not has_image_suffix(first) and not os.path.isfile(path):
        raise UserError(
            f"{table.source}: the first line does not begin with an image, but '{first}'. Remove "
            "the column names, or give a .csv; name another column of paths with "
            "dataset.path_column."
        )


def _read_split_column(table: Table, column: int, val_as: ValAs | None) -> npt.NDArray[np.str_]:
    """What each row is: train, test or ignore."""
    values = [value.strip().lower() for value in table.column(column)]
    for row, value in enumerate(values):
        if value not in PARTS:
            place = table.describe_cell(row, column)
            raise UserError(f"{place}: '{value}' is not one of train, database, test, query, val.")
    place = f"{table.source}, column '{table.columns[column]}'"
    roles = resolve_parts(place, set(values), val_as)
    return np.array([roles[value] for value in values])


def _check_path_column(
    table: Table, root: Path, path_column: int, *, of_files: bool = False
) -> None:
    """Refuse paths that are no images if another column holds images.

    Args:
        table: the table.
        root: folder that the paths are relative to.
        path_column: the column that is taken for the paths.
        of_files: whether a name in another column counts only if there is such a file, in
            whichever folder.
    """
    cells = [use_forward_slashes(cell) for cell in table.rows[0]]
    holds_images = [has_image_suffix(cell) or os.path.isfile(root / cell) for cell in cells]
    others = [column for column, is_image in enumerate(holds_images) if is_image]
    if not others or holds_images[path_column]:
        return
    if of_files:
        files = {_file_name(path) for path in walk_files(root, lambda error: None)}
        others = [
            column
            for column in others
            if _file_name(cells[column]) in files or os.path.isfile(root / cells[column])
        ]
    if others:
        name = table.columns[others[0]]
        raise UserError(
            f"{table.source}: column '{table.columns[path_column]}' holds no paths of images, "
            f"but column '{name}' does. Set dataset.path_column={name}."
        )


def _file_name(path: str) -> str:
    """The name without folders, in a form that is the same for all its spellings."""
    return fold_name(path).rpartition("/")[2]
