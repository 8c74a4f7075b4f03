"""Lists of NUS-WIDE that are in circulation: an image per line, and 0 and 1 per concept."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from deephash.core.errors import UserError
from deephash.data.datasets.nuswide_files import CONCEPTS, Annotations, find_entry
from deephash.data.datasets.nuswide_orders import check_orders, infer_concepts
from deephash.data.files.label_matrix import read_label_matrix
from deephash.data.files.name_index import NameIndex
from deephash.data.files.names import use_forward_slashes
from deephash.data.files.split_lists import read_list
from deephash.data.files.tables import SUFFIXES, Table, read_table

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Columns:
    """The label columns of a list.

    Attributes:
        list_name: name of the list.
        place: the file that holds the columns.
        count: how many there are.
        header: their names; None if the format has none.
        concepts: the concepts they are named after; None if they have other names or none.
    """

    list_name: str
    place: Path
    count: int
    header: list[str] | None
    concepts: list[str] | None


def read_label_lists(
    folder: Path, lists: list[str], order: str | None, label_files: Sequence[str] = ()
) -> Annotations:
    """Read lists with one image per line: its path and a 0 or 1 per concept.

    Lists whose names contain a word that begins with `test` or `quer` hold test images. A line that
    repeats an image of the same list is returned again. An image of a later list is that of an
    earlier one if only its spelling differs.

    Args:
        folder: of the lists.
        lists: names of the lists.
        order: "frequency" or "alphabetical" order of the columns; None infers it from their counts.
            It is not used if the columns are named after concepts: in all lists or in none.
        label_files: names of the files with the 0s and 1s of each list, if they are not in it.

    Raises:
        UserError: a list cannot be read or contradicts another, or the order cannot be inferred.
    """
    if label_files and len(label_files) != len(lists):
        raise UserError(
            f"dataset.label_files names {len(label_files)} files for {len(lists)} of "
            "dataset.lists. Name one for each list, in the same order."
        )
    rows: list[tuple[str, str, list[str]]] = []  # name, place and values
    first_occurrence: dict[str, tuple[str, list[str]]] = {}  # place and values by name
    test_names: set[str] = set()
    other_names: set[str] = set()
    columns_of_lists: list[_Columns] = []
    starts: list[int] = []  # of each list, in `rows`
    for list_name, label_file in zip_longest(lists, label_files):
        images, columns = _read_label_list(folder, list_name, label_file)
        for other in columns_of_lists:
            _check_columns(columns, other)
        columns_of_lists.append(columns)
        starts.append(len(rows))
        concepts = columns_of_lists[0].concepts
        if concepts and columns.concepts:
            order_of_first = [columns.concepts.index(concept) for concept in concepts]
            images = [(n, name, [values[i] for i in order_of_first]) for n, name, values in images]
        known = list(first_occurrence)
        same = NameIndex(known).find_all(
            folder / list_name,
            [f"{folder / list_name}, line {line}" for line, _, _ in images],
            [(name,) for _, name, _ in images],
        )
        names: set[str] = set()
        for (line, name, values), row in zip(images, same, strict=True):
            name = name if row is None else known[row]
            place = f"{list_name}, line {line}"
            first_place, first_values = first_occurrence.setdefault(name, (place, values))
            if first_values != values:
                raise UserError(f"{folder / place}: {name} has other labels than in {first_place}.")
            if first_place == place or name in names:
                rows.append((name, place, values))
            names.add(name)
        (test_names if _is_test_list(list_name) else other_names).update(names)
    all_values = np.array([values for _, _, values in rows], dtype=str)
    invalid_labels = [
        f"{rows[row][1]}: {all_values[row, column][:20]!r}"
        for row, column in np.argwhere((all_values != "0") & (all_values != "1"))
    ]
    labels = (all_values == "1").astype(np.uint8)
    concepts = columns_of_lists[0].concepts
    if concepts and order is not None:
        logger.warning("nuswide: dataset.order=%s is not used: the lists name the concepts", order)
    if not concepts:
        places = [columns.place for columns in columns_of_lists]
        check_orders(places, np.split(labels, starts[1:]))
    return Annotations(
        names=[name for name, _, _ in rows],
        labels=labels,
        concepts=concepts or infer_concepts(columns_of_lists[0].place, labels.sum(axis=0), order),
        is_test=np.array([name in test_names for name, _, _ in rows]),
        invalid_labels=invalid_labels,
        test_images_in_other_lists=sorted(test_names & other_names),
    )


def _check_columns(columns: _Columns, first: _Columns) -> None:
    """Refuse a list whose columns are not those of an earlier one."""
    place = columns.place
    if columns.count != first.count:
        raise UserError(
            f"{place} has {columns.count} labels per line, but {first.list_name} has {first.count}."
        )
    if (columns.concepts is None) != (first.concepts is None):
        unnamed, other = (
            (place, first.list_name) if columns.concepts is None else (first.list_name, place)
        )
        raise UserError(
            f"{unnamed} does not name the concepts of its columns, but {other} does. Name them in "
            "the first line of each list, as .csv, or of none."
        )
    differing = sorted({*(columns.concepts or ())} - {*(first.concepts or ())})
    if differing:
        raise UserError(
            f"{place} has a column '{differing[0]}', which {first.list_name} does not have. Give "
            "the same concepts in each list."
        )
    if columns.concepts or not columns.header or not first.header:
        return
    for i, (name, other_name) in enumerate(zip(columns.header, first.header, strict=True), 1):
        if name != other_name:
            raise UserError(
                f"{place}: label column {i} is named '{name}', but '{other_name}' in "
                f"{first.list_name}, and neither list names the concepts of NUS-WIDE. Name them, "
                "as in sky, or name the columns alike if they are in the same order."
            )


def _is_test_list(name: str) -> bool:
    """Whether a word of the name begins with test or quer; `latest_train.txt` has no such word."""
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+", Path(name).stem)
    return any(word.lower().startswith(("test", "quer")) for word in words)


def _read_label_list(
    folder: Path, list_name: str, label_file: str | None
) -> tuple[list[tuple[int, str, list[str]]], _Columns]:
    """Line, name and labels of each image; and the columns of the labels."""
    source = find_entry(folder, list_name)
    if label_file is None:
        table = _read_label_table(source)
        images = [
            (line, use_forward_slashes(path), values)
            for line, (path, *values) in zip(table.lines, table.rows, strict=True)
        ]
        header = None if source.suffix.lower() == ".txt" else table.columns[1:]
        concepts = _named_concepts(table)
        place = folder / list_name
        return images, _Columns(list_name, place, len(table.columns) - 1, header, concepts)
    listed = read_list(source)
    if not listed:
        raise UserError(f"{source} names no image.")
    matrix = read_label_matrix(find_entry(folder, label_file), len(listed), list_name)
    images = [(i.line, i.name, values) for i, values in zip(listed, matrix, strict=True)]
    return images, _Columns(list_name, folder / label_file, len(images[0][2]), None, None)


def _named_concepts(table: Table) -> list[str] | None:
    """The concepts that the columns are named after; None if they have other names.

    They may be named as the official files are: `Labels_sky.txt` or `Labels_sky_Train.txt`.
    """
    affixes = r"^labels?_|(_train|_test)?(\.txt)?$"
    names = [re.sub(affixes, "", name.lower()) for name in table.columns[1:]]
    unknown = [name for name in names if name not in CONCEPTS]
    if len(unknown) == len(names):
        return None
    if unknown or len({*names}) < len(names):
        other = unknown[0] if unknown else next(n for n in names if names.count(n) > 1)
        raise UserError(
            f"{table.source}: column '{other}' is not one of the concepts of NUS-WIDE, each once."
        )
    return names


def _read_label_table(source: Path) -> Table:
    if source.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{source} does not have the suffix of a list. Rename it to .txt if its values are "
            f"separated by blanks, or to one of {', '.join(SUFFIXES)} after its format."
        )
    table = read_table(source)
    if not table.rows:
        raise UserError(f"{source} names no image.")
    labels = set(table.columns[1:])
    if table.lines[0] > 1 and labels and labels <= {"0", "1"}:
        raise UserError(
            f"{source}: the first line is an image, not column names. Insert a line of column "
            "names above it."
        )
    return table
