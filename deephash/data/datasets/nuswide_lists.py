"""Lists of NUS-WIDE that are in circulation: an image per line, and 0 and 1 per concept."""

import logging
import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError
from deephash.data.datasets.nuswide_files import CONCEPTS, FREQUENT, Annotations, find_entry
from deephash.data.files.label_matrix import read_label_matrix
from deephash.data.files.name_index import NameIndex
from deephash.data.files.names import use_forward_slashes
from deephash.data.files.split_lists import read_list
from deephash.data.files.tables import SUFFIXES, Table, read_table

# If the columns of a list are read in the right order, the logarithms of their counts correlate
# with those of all images. For the 2,100 queries, drawn evenly from the classes, the correlation is
# still 0.76, and 0.40 in the wrong order.
MIN_CORRELATION, MIN_CORRELATION_MARGIN = 0.6, 0.2

logger = logging.getLogger(__name__)


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
    column_count = 0
    concepts: list[str] | None = None
    for list_name, label_file in zip_longest(lists, label_files):
        images, named = _read_label_list(folder, list_name, label_file)
        if not rows:
            column_count, concepts = len(images[0][2]), named
        place = str(folder / (label_file or list_name))
        _check_columns(place, len(images[0][2]), named, lists[0], column_count, concepts)
        if concepts and named:
            columns = [named.index(concept) for concept in concepts]
            images = [(n, name, [values[i] for i in columns]) for n, name, values in images]
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
    if concepts and order is not None:
        logger.warning("nuswide: dataset.order=%s is not used: the lists name the concepts", order)
    source = folder / (label_files[0] if label_files else lists[0])
    return Annotations(
        names=[name for name, _, _ in rows],
        labels=labels,
        concepts=concepts or _infer_concepts(source, labels.sum(axis=0), order),
        is_test=np.array([name in test_names for name, _, _ in rows]),
        invalid_labels=invalid_labels,
        test_images_in_other_lists=sorted(test_names & other_names),
    )


def _check_columns(
    place: str,
    count: int,
    named: list[str] | None,
    first_list: str,
    first_count: int,
    first_named: list[str] | None,
) -> None:
    """Refuse a list whose columns are not those of the first list."""
    if count != first_count:
        raise UserError(f"{place} has {count} labels per line, but {first_list} has {first_count}.")
    if (named is None) != (first_named is None):
        unnamed, other = (place, first_list) if named is None else (first_list, place)
        raise UserError(
            f"{unnamed} does not name the concepts of its columns, but {other} does. Name them in "
            "the first line of each list, as .csv, or of none."
        )
    differing = sorted({*(named or ())} - {*(first_named or ())})
    if differing:
        raise UserError(
            f"{place} has a column '{differing[0]}', which {first_list} does not have. Give the "
            "same concepts in each list."
        )


def _is_test_list(name: str) -> bool:
    """Whether a word of the name begins with test or quer; `latest_train.txt` has no such word."""
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+", Path(name).stem)
    return any(word.lower().startswith(("test", "quer")) for word in words)


def _read_label_list(
    folder: Path, list_name: str, label_file: str | None
) -> tuple[list[tuple[int, str, list[str]]], list[str] | None]:
    """Line, name and labels of each image; and the concepts of the labels, if they are named."""
    source = find_entry(folder, list_name)
    if label_file is None:
        table = _read_label_table(source)
        images = [
            (line, use_forward_slashes(path), values)
            for line, (path, *values) in zip(table.lines, table.rows, strict=True)
        ]
        return images, _named_concepts(table)
    listed = read_list(source)
    if not listed:
        raise UserError(f"{source} names no image.")
    matrix = read_label_matrix(find_entry(folder, label_file), len(listed), list_name)
    return [(i.line, i.name, values) for i, values in zip(listed, matrix, strict=True)], None


def _named_concepts(table: Table) -> list[str] | None:
    """The concepts that the columns are named after; None if they have other names."""
    names = [name.lower() for name in table.columns[1:]]
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


def _infer_concepts(
    source: Path, counts: npt.NDArray[np.integer], order: str | None
) -> Sequence[str]:
    """Concepts of the columns of a list, by how often each column is 1."""
    frequent = list(FREQUENT)[: len(counts)]
    known_concepts = {10: frequent, 21: frequent, 81: CONCEPTS}
    if len(counts) not in known_concepts:
        raise UserError(
            f"{source} has {len(counts)} labels per line: lists of NUS-WIDE have 81, 21 or 10. "
            "Remove other columns, or name the concepts in the first line of a .csv; if the labels "
            "are in files of their own, name these with dataset.label_files=[...]."
        )
    orders = {"alphabetical": sorted(known_concepts[len(counts)]), "frequency": frequent}
    if order is not None:
        return _check_length(source, orders[order], counts)
    expected = np.log(list(FREQUENT.values())[: len(frequent)])
    correlations = {}
    for name, concepts in orders.items():
        log_counts = np.log1p([counts[concepts.index(concept)] for concept in frequent])
        correlation = np.corrcoef(log_counts, expected)[0, 1] if log_counts.std() else 0.0
        correlations[name] = float(correlation)
    best = max(correlations, key=lambda name: correlations[name])
    margin = correlations[best] - min(correlations.values())
    if correlations[best] < MIN_CORRELATION or margin < MIN_CORRELATION_MARGIN:
        shown = ", ".join(f"{name} {value:.2f}" for name, value in correlations.items())
        raise UserError(
            f"{source}: the order of its {len(counts)} columns cannot be inferred from their "
            f"counts (correlation {shown}). Set dataset.order=frequency or "
            "dataset.order=alphabetical."
        )
    logger.info("nuswide: the columns are in %s order (correlation %.2f)", best, correlations[best])
    return _check_length(source, orders[best], counts)


def _check_length(source: Path, concepts: Sequence[str], counts: npt.NDArray) -> Sequence[str]:
    if len(concepts) != len(counts):
        raise UserError(
            f"{source}: 81 columns can only be in alphabetical order. Set "
            "dataset.order=alphabetical."
        )
    return concepts
