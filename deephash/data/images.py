"""Your own images: a folder of class folders, or a list of files and labels."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from deephash.data.image_set import ImageSet
from deephash.data.listing import Decoding, Listing
from deephash.data.tables import SUFFIXES, Table, read_table
from deephash.errors import UserError

TEST, NO_TEST = {"test", "query"}, {"train", "database"}  # what a given split may say
SPLIT = "split"  # the column of it


def images(
    *,
    path: str,
    root: str | None,
    mark: str,
    size: int,
    keep_decoded: bool,
    decoded_dir: str,
    workers: int | None,
    tolerated: float,
) -> ImageSet:
    """Images from a folder of class folders, or from a list.

    A folder holds a folder of images for each class, or `train/` and `test/` (`database/` and
    `query/`) of these. A list is CSV, TSV or Parquet with named columns, the first of them the
    image's path, or text of paths and labels between blanks, without names. The other columns are
    one of labels, several of an image apart by `mark`, or one a class that says 0 or 1; a column
    named `split` says `train`, `database`, `test` or `query`.

    Images with one label each get class indices, all others multi-hot labels.

    Args:
        path: of the folder or list.
        root: where a list's paths begin; None: where the list lies.
        mark: between two labels of one image.
        size: see `Decoding`, and so are the others.
        keep_decoded: see there.
        decoded_dir: see there.
        workers: see there; None for the number of cores.
        tolerated: see there.

    Raises:
        UserError: folder or list are not as described, or too many images cannot be used.
    """
    source = Path(path)
    if source.is_dir():
        listing = _from_folder(source)
    elif source.suffix.lower() in SUFFIXES:
        listing = _from_table(read_table(source), Path(root) if root else source.parent, mark)
    else:
        raise UserError(
            f"dataset.path={path}: there is no such folder, and no list by its name. Give a folder "
            f"of class folders, or a list ({', '.join(SUFFIXES)})."
        )
    folder = Path(decoded_dir)
    workers = workers or os.cpu_count() or 1
    return listing.image_set(Decoding(size, keep_decoded, folder, workers, tolerated))


def _from_folder(source: Path) -> Listing:
    tops = _splits(source)
    known = Image.registered_extensions()
    ids, paths, names, is_test, ignored = [], [], [], [], []
    for top in tops or [source]:
        for file in _files(top):
            told = file.relative_to(source).as_posix()
            if file.suffix.lower() not in known:
                ignored.append(told)
                continue
            ids.append(told)
            paths.append(str(file))
            names.append(file.relative_to(top).parts[:-1][:1])  # none lies in no class folder
            is_test.append(bool(tops) and top.name.lower() in TEST)
    if not any(names):
        raise UserError(
            f"dataset.path={source}: no class folder with images is there. Give a folder that "
            "holds a folder of images for each class, or a list of files and labels."
        )
    labels, classes = _labels(names)
    notes = {"no_images_by_their_names": ignored}
    name = source.resolve().name
    return Listing(name, source, ids, paths, labels, classes, np.array(is_test), notes=notes)


def _splits(source: Path) -> list[Path]:
    """The folders of a given split, each of class folders; none where there is no such split."""
    tops = sorted(path for path in source.iterdir() if path.is_dir() and path.name[0] != ".")
    names = {path.name.lower() for path in tops}
    if not names & NO_TEST or not all(any(p.is_dir() for p in top.iterdir()) for top in tops):
        return []
    if not names & TEST or names - TEST - NO_TEST:
        raise UserError(
            f"dataset.path={source} looks like a split, of {', '.join(sorted(names))}. A split is "
            "train/ and test/, or database/ and query/, of class folders: rename the others, or "
            "move them into these; images for validation are held out of the training images."
        )
    return tops


def _files(folder: Path) -> Iterator[Path]:
    """All below it, in an order that no machine changes; without hidden ones."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}.")

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield from (Path(place, name) for name in sorted(files) if name[0] != ".")


def _from_table(table: Table, root: Path, mark: str) -> Listing:
    source = table.source
    if not table.rows:
        raise UserError(f"{source} names no image.")
    if (root / _portable(table.columns[0])).is_file():
        raise UserError(f"{source}: its first line is an image, not the names of the columns.")
    is_test = np.zeros(len(table.rows), dtype=bool)
    others = list(range(1, len(table.columns)))
    if SPLIT in table.columns[1:]:
        others.remove(table.columns.index(SPLIT, 1))
        is_test = _given_split(table)
    if not others:
        raise UserError(f"{source} has no labels: give a column after that of the paths.")
    if len(others) == 1:
        labels, classes = _labels([_apart(value, mark) for value in table.column(others[0])])
    else:
        labels, classes = _multi_hot(table, others), tuple(table.columns[i] for i in others)
    ids = [_portable(name) for name in table.column(0)]
    paths = [os.path.join(root, name) for name in ids]
    return Listing(source.stem, source, ids, paths, labels, classes, is_test)


def _given_split(table: Table) -> npt.NDArray[np.bool_]:
    position = table.columns.index(SPLIT, 1)
    said = [value.strip().lower() for value in table.column(position)]
    for row, value in enumerate(said):
        if value not in TEST | NO_TEST:
            place = table.where(row, position)
            raise UserError(f"{place}: '{value}' is none of train, database, test, query.")
    return np.array([value in TEST for value in said])


def _apart(value: str, mark: str) -> tuple[str, ...]:
    names = (name.strip() for name in value.split(mark))
    return tuple(name for name in names if name)


def _portable(name: str) -> str:
    return name.replace("\\", "/")


def _labels(
    names: Sequence[tuple[str, ...]],
) -> tuple[npt.NDArray[np.integer], tuple[str, ...]]:
    """Class indices, -1 for none, or multi-hot labels where some have several; and the classes."""
    classes = sorted({name for some in names for name in some})
    index = {name: position for position, name in enumerate(classes)}
    if max(map(len, names)) <= 1:
        return np.array([index[some[0]] if some else -1 for some in names]), tuple(classes)
    labels = np.zeros((len(names), len(classes)), dtype=np.uint8)
    for row, some in enumerate(names):
        labels[row, [index[name] for name in some]] = 1
    return labels, tuple(classes)


def _multi_hot(table: Table, positions: Sequence[int]) -> npt.NDArray[np.uint8]:
    """A column of 0 and 1 a class."""
    labels = np.zeros((len(table.rows), len(positions)), dtype=np.uint8)
    for label, position in enumerate(positions):
        values = np.array([value.strip() for value in table.column(position)])
        labels[:, label] = values == "1"
        wrong = np.flatnonzero((values != "0") & (values != "1"))
        if len(wrong):
            row = int(wrong[0])
            raise UserError(
                f"{table.where(row, position)}: '{values[row]}' is neither 0 nor 1. Several "
                "columns of labels hold one class each; else give a single column of labels."
            )
    return labels
