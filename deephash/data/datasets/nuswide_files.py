"""Annotation files of NUS-WIDE: the official ones, and the lists that are in circulation."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError
from deephash.data.files.names import use_forward_slashes
from deephash.data.files.split_lists import read_list
from deephash.data.files.tables import SUFFIXES, Table, read_table

# In the order of the official files.
CONCEPTS = (  # noqa: SIM905
    "airport animal beach bear birds boats book bridge buildings cars castle cat cityscape clouds "
    "computer coral cow dancing dog earthquake elk fire fish flags flowers food fox frost garden "
    "glacier grass harbor horses house lake leaf map military moon mountain nighttime ocean person "
    "plane plants police protest railroad rainbow reflection road rocks running sand sign sky snow "
    "soccer sports statue street sun sunset surf swimmers tattoo temple tiger tower town toy train "
    "tree valley vehicle water waterfall wedding whales window zebra"
).split()
# The most frequent ones, with the number of their images.
FREQUENT = {
    "sky": 74190, "clouds": 54087, "person": 51577, "water": 35264, "animal": 33887, "grass": 22561,
    "buildings": 17835, "window": 15051, "plants": 14345, "lake": 13392, "ocean": 11307,
    "road": 9524, "flowers": 8605, "sunset": 8418, "reflection": 7875, "rocks": 6327,
    "vehicle": 6099, "snow": 5404, "tree": 5352, "beach": 5239, "mountain": 5099,
}  # fmt: skip
# If the columns of a list are read in the right order, the logarithms of their counts correlate
# with those of all images. For the 2,100 queries, drawn evenly from the classes, the correlation is
# still 0.76, and 0.40 in the wrong order.
MIN_CORRELATION, MIN_CORRELATION_MARGIN = 0.6, 0.2

Labels = npt.NDArray[np.uint8]

logger = logging.getLogger(__name__)


@dataclass
class Annotations:
    """What files say of n images.

    Attributes:
        names: of the image files, with their folders.
        labels: uint8 multi-hot (n, concepts).
        concepts: their names.
        is_test: bool (n,), whether an image belongs to the test set.
        invalid_labels: places and values of labels that are neither 0 nor 1; they count as 0.
        test_images_in_other_lists: names of test images that another list names too.
    """

    names: list[str]
    labels: Labels
    concepts: Sequence[str]
    is_test: npt.NDArray[np.bool_]
    invalid_labels: list[str] = field(default_factory=list)
    test_images_in_other_lists: list[str] = field(default_factory=list)


def read_official_files(folder: Path) -> Annotations:
    """Read the official files, as they are unpacked.

    Args:
        folder: holds `ImageList/` and, in `Groundtruth/` or directly, `AllLabels/` or
            `TrainTestLabels/`.

    Raises:
        UserError: a file is missing, or does not fit the others.
    """
    truth = folder / "Groundtruth" if (folder / "Groundtruth").is_dir() else folder
    if (truth / "AllLabels").is_dir():
        parts = [_read_part(folder, truth / "AllLabels", "", "Imagelist.txt")]
    elif (truth / "TrainTestLabels").is_dir():
        parts = [
            _read_part(folder, truth / "TrainTestLabels", f"_{part}", f"{part}Imagelist.txt")
            for part in ("Train", "Test")
        ]
    else:
        raise UserError(
            f"dataset.folder={folder} holds neither Groundtruth/AllLabels nor "
            "Groundtruth/TrainTestLabels. Unpack the official files there, name their folder with "
            "dataset.folder=..., or name lists of images with dataset.lists=[train.txt,test.txt]."
        )
    names = [name for part, _, _ in parts for name in part]
    return Annotations(
        names=names,
        labels=np.concatenate([labels for _, labels, _ in parts]),
        concepts=CONCEPTS,
        is_test=_find_test_images(folder / "ImageList" / "TestImagelist.txt", names),
        invalid_labels=[label for _, _, invalid_labels in parts for label in invalid_labels],
    )


def _read_part(
    folder: Path, label_folder: Path, suffix: str, list_name: str
) -> tuple[list[str], Labels, list[str]]:
    """Names, labels and invalid labels of the images of one list."""
    names = _read_names(folder / "ImageList" / list_name)
    labels = np.empty((len(names), len(CONCEPTS)), dtype=np.uint8)
    invalid_labels: list[str] = []
    for column, concept in enumerate(CONCEPTS):
        path = label_folder / f"Labels_{concept}{suffix}.txt"
        values, invalid_values = _read_label_column(path)
        if len(values) != len(names):
            raise UserError(
                f"{path} has {len(values):,} lines, but {list_name} names {len(names):,} images."
            )
        labels[:, column] = values
        invalid_labels += invalid_values
    return names, labels, invalid_labels


def _find_test_images(path: Path, names: list[str]) -> npt.NDArray[np.bool_]:
    """Which images are in the official test list: bool (n,); none if there is no such list."""
    if not path.is_file():
        return np.zeros(len(names), dtype=bool)
    test_names = set(_read_names(path))
    is_test = np.array([name in test_names for name in names])
    if not is_test.any():
        raise UserError(
            f"{path} names none of the images, whose names are like {names[0]}. Write them as in "
            "the other lists, or remove the file: then there are no official test images."
        )
    return is_test


def _read_names(path: Path) -> list[str]:
    return [image.name for image in read_list(path)]


def _read_label_column(path: Path) -> tuple[Labels, list[str]]:
    """One label per line, and places and values of those that are neither 0 nor 1."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    digits = np.frombuffer(text.translate(None, b" \t\r\n"), dtype=np.uint8) - ord("0")
    line_count = text.count(b"\n") + (not text.endswith(b"\n"))
    if len(digits) == line_count and digits.max(initial=0) <= 1:
        return digits, []
    values = [line.strip() for line in text.splitlines()]
    invalid_values = [
        f"{path.name}, line {number}: {value.decode(errors='replace')[:20]!r}"
        for number, value in enumerate(values, 1)
        if value not in (b"0", b"1")
    ]
    return np.array([value == b"1" for value in values], dtype=np.uint8), invalid_values


def read_label_lists(folder: Path, lists: list[str], order: str | None) -> Annotations:
    """Read lists with one image per line: its path and a 0 or 1 per concept.

    Lists whose names contain a word that begins with `test` or `quer` hold test images. A line that
    repeats an image of the same list is returned again.

    Args:
        folder: of the lists.
        lists: names of the lists.
        order: "frequency" or "alphabetical" order of the columns; None infers it from their counts.

    Raises:
        UserError: a list cannot be read or contradicts another, or the order cannot be inferred.
    """
    rows: list[tuple[str, str, list[str]]] = []  # name, place and values
    first_occurrence: dict[str, tuple[str, list[str]]] = {}  # place and values by name
    test_names: set[str] = set()
    other_names: set[str] = set()
    column_count = 0
    for list_name in lists:
        table = _read_label_table(folder / list_name)
        column_count = column_count or len(table.columns)
        if len(table.columns) != column_count:
            raise UserError(
                f"{table.source} has {len(table.columns) - 1} labels per line, but {lists[0]} has "
                f"{column_count - 1}."
            )
        names: set[str] = set()
        for line, (path, *values) in zip(table.lines, table.rows, strict=True):
            name, place = use_forward_slashes(path), f"{list_name}, line {line}"
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
    return Annotations(
        names=[name for name, _, _ in rows],
        labels=labels,
        concepts=_infer_concepts(folder / lists[0], labels.sum(axis=0), order),
        is_test=np.array([name in test_names for name, _, _ in rows]),
        invalid_labels=invalid_labels,
        test_images_in_other_lists=sorted(test_names & other_names),
    )


def _is_test_list(name: str) -> bool:
    """Whether a word of the name begins with test or quer; `latest_train.txt` has no such word."""
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+", Path(name).stem)
    return any(word.lower().startswith(("test", "quer")) for word in words)


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
            f"{source} has {len(counts)} labels per line: lists of NUS-WIDE have 81, 21 or 10."
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
