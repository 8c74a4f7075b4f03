"""The files of NUS-WIDE: official ones as they are unpacked, and lists as they go round."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError
from deephash.data.files.tables import SUFFIXES, Table, read_table

# In the official order.
CONCEPTS = (  # noqa: SIM905
    "airport animal beach bear birds boats book bridge buildings cars castle cat cityscape clouds "
    "computer coral cow dancing dog earthquake elk fire fish flags flowers food fox frost garden "
    "glacier grass harbor horses house lake leaf map military moon mountain nighttime ocean person "
    "plane plants police protest railroad rainbow reflection road rocks running sand sign sky snow "
    "soccer sports statue street sun sunset surf swimmers tattoo temple tiger tower town toy train "
    "tree valley vehicle water waterfall wedding whales window zebra"
).split()
# The most frequent ones, and of how many images they are.
FREQUENT = {
    "sky": 74190, "clouds": 54087, "person": 51577, "water": 35264, "animal": 33887, "grass": 22561,
    "buildings": 17835, "window": 15051, "plants": 14345, "lake": 13392, "ocean": 11307,
    "road": 9524, "flowers": 8605, "sunset": 8418, "reflection": 7875, "rocks": 6327,
    "vehicle": 6099, "snow": 5404, "tree": 5352, "beach": 5239, "mountain": 5099,
}  # fmt: skip
# The logarithms of a list's counts go with those of all images where its columns are read right;
# drawn evenly from the classes they still do: 0.76 for the 2,100 queries, 0.40 if read wrong.
LIKE, MORE_THAN_OTHERS = 0.6, 0.2

Labels = npt.NDArray[np.uint8]


@dataclass
class Said:
    """What files say of all images.

    Attributes:
        names: of the files, with the folders that they have there.
        labels: 0 or 1, (n, concepts).
        concepts: their names.
        is_test: bool (n,).
        impossible: where a label was neither 0 nor 1, and what; it counts as 0.
        also_elsewhere: test images that another list names too.
    """

    names: list[str]
    labels: Labels
    concepts: Sequence[str]
    is_test: npt.NDArray[np.bool_]
    impossible: list[str] = field(default_factory=list)
    also_elsewhere: list[str] = field(default_factory=list)


def official(place: Path) -> Said:
    """What the official files say, as they are unpacked.

    Raises:
        UserError: a file is missing, or does not fit the others.
    """
    truth = place / "Groundtruth" if (place / "Groundtruth").is_dir() else place
    if (truth / "AllLabels").is_dir():
        parts = [_part(place, truth / "AllLabels", "", "Imagelist.txt")]
    elif (truth / "TrainTestLabels").is_dir():
        parts = [
            _part(place, truth / "TrainTestLabels", f"_{part}", f"{part}Imagelist.txt")
            for part in ("Train", "Test")
        ]
    else:
        raise UserError(
            f"dataset=nuswide: {place} holds neither Groundtruth/AllLabels nor "
            "Groundtruth/TrainTestLabels. Unpack the official files there, name their folder with "
            "dataset.folder=..., or name lists of images with dataset.lists=[train.txt,test.txt]."
        )
    names = [name for part, _, _ in parts for name in part]
    return Said(
        names=names,
        labels=np.concatenate([labels for _, labels, _ in parts]),
        concepts=CONCEPTS,
        is_test=_tests(place / "ImageList" / "TestImagelist.txt", names),
        impossible=[told for _, _, impossible in parts for told in impossible],
    )


def _part(
    place: Path, folder: Path, suffix: str, names_file: str
) -> tuple[list[str], Labels, list[str]]:
    """Names, labels, and which of these are impossible."""
    names = _names(place / "ImageList" / names_file)
    labels = np.empty((len(names), len(CONCEPTS)), dtype=np.uint8)
    impossible: list[str] = []
    for column, concept in enumerate(CONCEPTS):
        path = folder / f"Labels_{concept}{suffix}.txt"
        values, wrong = _column(path)
        if len(values) != len(names):
            raise UserError(
                f"{path} has {len(values):,} lines, but {names_file} names {len(names):,} images."
            )
        labels[:, column] = values
        impossible += wrong
    return names, labels, impossible


def _tests(path: Path, names: list[str]) -> npt.NDArray[np.bool_]:
    """Which are test images; none where no file says it."""
    if not path.is_file():
        return np.zeros(len(names), dtype=bool)
    tests = set(_names(path))
    is_test = np.array([name in tests for name in names])
    if not is_test.any():
        raise UserError(
            f"{path} names none of the images, which are called as {names[0]}. Name them as the "
            "other lists do, or remove it: without it there are no official test images."
        )
    return is_test


def _names(path: Path) -> list[str]:
    """File names of a list, as this system writes them."""
    lines = _read(path).decode("utf-8", errors="surrogateescape").splitlines()
    return [line.strip().replace("\\", "/") for line in lines if line.strip()]


def _column(path: Path) -> tuple[Labels, list[str]]:
    """A value a line; and the lines of values that are neither 0 nor 1, which count as 0."""
    text = _read(path)
    digits = np.frombuffer(text.translate(None, b" \t\r\n"), dtype=np.uint8) - ord("0")
    lines = text.count(b"\n") + (not text.endswith(b"\n"))
    if len(digits) == lines and digits.max(initial=0) <= 1:
        return digits, []
    values = [line.strip() for line in text.splitlines()]
    wrong = [
        f"{path.name}, line {number}: {value.decode(errors='replace')[:20]!r}"
        for number, value in enumerate(values, 1)
        if value not in (b"0", b"1")
    ]
    return np.array([value == b"1" for value in values], dtype=np.uint8), wrong


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"dataset=nuswide: {path} cannot be read: {error.strerror}.") from None


def from_lists(place: Path, lists: list[str], order: str | None) -> Said:
    """What lists say: a line an image, its path and 0/1 columns.

    Lists whose names have a word that begins with `test` or `quer` are of test images. A row that
    its list repeats is given again.

    Args:
        place: folder of the lists.
        lists: their names there.
        order: "frequency" or "alphabetical", of the columns; None tells it by their counts.

    Raises:
        UserError: a list cannot be read, contradicts another, or has columns of unknown order.
    """
    rows: list[tuple[str, str, list[str]]] = []
    first: dict[str, tuple[str, list[str]]] = {}
    tests: set[str] = set()
    others: set[str] = set()
    width = 0
    for name in lists:
        table = _table(place / name)
        width = width or len(table.columns)
        if len(table.columns) != width:
            raise UserError(
                f"{table.source} has {len(table.columns) - 1} labels a line, but {lists[0]} has "
                f"{width - 1}."
            )
        named: set[str] = set()
        for number, (path, *values) in zip(table.lines, table.rows, strict=True):
            image, line = path.replace("\\", "/"), f"{name}, line {number}"
            where, known = first.setdefault(image, (line, values))
            if known != values:
                raise UserError(f"{place / line}: {image} has other labels than in {where}.")
            if where == line or image in named:
                rows.append((image, line, values))
            named.add(image)
        (tests if _of_tests(name) else others).update(named)
    every = np.array([values for _, _, values in rows], dtype=str)
    impossible = [
        f"{rows[row][1]}: {every[row, column][:20]!r}"
        for row, column in np.argwhere((every != "0") & (every != "1"))
    ]
    labels = (every == "1").astype(np.uint8)
    concepts = _concepts(place / lists[0], labels.sum(axis=0), order)
    names = [image for image, _, _ in rows]
    is_test = np.array([image in tests for image in names])
    return Said(names, labels, concepts, is_test, impossible, sorted(tests & others))


def _of_tests(name: str) -> bool:
    """Whether a list's name says so; `latest_train.txt` does not."""
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+", Path(name).stem)
    return any(word.lower().startswith(("test", "quer")) for word in words)


def _table(source: Path) -> Table:
    if source.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{source} is no list by its name. Name it .txt, with blanks between its values, or "
            f"as what it is of {', '.join(SUFFIXES)}."
        )
    table = read_table(source)
    if not table.rows:
        raise UserError(f"{source} names no image.")
    labels = set(table.columns[1:])
    if table.lines[0] > 1 and labels and labels <= {"0", "1"}:
        raise UserError(
            f"{source}: its first line is an image, not the names of the columns. Give them names "
            "in a line above."
        )
    return table


def _concepts(source: Path, counts: npt.NDArray[np.integer], order: str | None) -> Sequence[str]:
    """What the columns of a list are, told by how often they are 1."""
    frequent = list(FREQUENT)[: len(counts)]
    known = {10: frequent, 21: frequent, 81: CONCEPTS}
    if len(counts) not in known:
        raise UserError(
            f"{source} has {len(counts)} labels a line: NUS-WIDE's lists have 81, 21 or 10."
        )
    readings = {"alphabetical": sorted(known[len(counts)]), "frequency": frequent}
    if order is not None:
        return _of_all(source, readings[order], counts)
    expected = np.log(list(FREQUENT.values())[: len(frequent)])
    like = {}
    for name, reading in readings.items():
        found = np.log1p([counts[reading.index(concept)] for concept in frequent])
        like[name] = float(np.corrcoef(found, expected)[0, 1]) if found.std() else 0.0
    best = max(like, key=lambda name: like[name])
    if like[best] < LIKE or like[best] - min(like.values()) < MORE_THAN_OTHERS:
        shown = ", ".join(f"{name} {value:.2f}" for name, value in like.items())
        raise UserError(
            f"{source}: how frequent its {len(counts)} columns are does not tell what they are "
            f"(correlation {shown}). Say dataset.order=frequency or dataset.order=alphabetical."
        )
    print(f"nuswide: the columns are in {best} order (correlation {like[best]:.2f})")
    return _of_all(source, readings[best], counts)


def _of_all(source: Path, reading: Sequence[str], counts: npt.NDArray) -> Sequence[str]:
    if len(reading) != len(counts):
        raise UserError(f"{source}: the order of 81 columns can only be alphabetical.")
    return reading
