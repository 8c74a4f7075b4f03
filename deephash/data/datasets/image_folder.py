"""Your own images: a folder of class folders, or a list of files and labels."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from deephash.core.errors import UserError
from deephash.data.files.cleaning import DecodingOptions, Listing, tell
from deephash.data.files.tables import SUFFIXES, Table, read_table
from deephash.data.image_set import ImageSet

TEST, NO_TEST = {"test", "query"}, {"train", "database"}  # what a given split may say
OTHER_PARTS = {"training", "testing", "val", "valid", "validation"}  # what else parts are called
SPLIT = "split"  # the column of it


def image_folder(
    *,
    path: str,
    root: str | None,
    mark: str,
    size: int,
    cache_decoded: bool,
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
        size: see `DecodingOptions`, and so are the others.
        cache_decoded: see there.
        decoded_dir: see there.
        workers: see there; None for the number of cores.
        tolerated: see there.

    Raises:
        UserError: folder, list or settings are not as described, or too many images cannot be
            used.
    """
    if not mark:
        raise UserError("dataset.mark='': give what stands between two labels of one image.")
    workers = workers or os.cpu_count() or 1
    decoding = DecodingOptions(size, cache_decoded, Path(decoded_dir), workers, tolerated)
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
    return listing.image_set(decoding)


def _from_folder(source: Path) -> Listing:
    known = Image.registered_extensions()
    ids: list[str] = []
    ignored: list[str] = []
    for name in _files(source):
        (ids if os.path.splitext(name)[1].lower() in known else ignored).append(name)
    depth = int(_is_split(source, ids))  # of the class folders
    folders = [name.split("/")[depth:-1] for name in ids]
    if not any(folders):
        raise UserError(
            f"dataset.path={source}: no class folder with images is there. Give a folder that "
            "holds a folder of images for each class, or a list of files and labels."
        )
    if all(len(some) != 1 for some in folders):
        deeper = next(name for name, some in zip(ids, folders, strict=True) if some)
        above = source / "/".join(deeper.split("/")[: depth + 1])
        raise UserError(
            f"dataset.path={source}: no class folder holds an image, all lie deeper, for example "
            f"{deeper}. Name the folder of the class folders: dataset.path={above}?"
        )
    labels, classes = _labels([tuple(some[:1]) for some in folders])  # none lies in no folder
    is_test = np.array([depth == 1 and name.split("/")[0].lower() in TEST for name in ids])
    paths = [os.path.join(source, name) for name in ids]
    name = source.resolve().name
    if ignored:
        counts = Counter(os.path.splitext(other)[1] or "without a suffix" for other in ignored)
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common())
        tell(f"{name}: no images by their names: {kinds}; for example {ignored[0]}")
    notes = {"no_images_by_their_names": ignored}
    return Listing(name, source, ids, paths, labels, classes, is_test, notes=notes)


def _is_split(source: Path, images: Sequence[str]) -> bool:
    """Whether the images lie in the parts of a given split, each of class folders."""
    tops = {name.partition("/")[0] for name in images if "/" in name}
    of_folders = {name.partition("/")[0] for name in images if name.count("/") > 1}
    if not any(top.lower() in TEST | NO_TEST | OTHER_PARTS for top in of_folders):
        return False
    names = {top.lower() for top in tops}
    if not names & TEST or not names & NO_TEST or names - TEST - NO_TEST:
        raise UserError(
            f"dataset.path={source} looks like a split, of {', '.join(sorted(names))}. A split is "
            "train/ and test/, or database/ and query/, of class folders: rename the others, or "
            "move them into these; images for validation are held out of the training images."
        )
    _refuse_both(f"dataset.path={source}", names)
    flat = sorted(tops - of_folders)
    if flat:
        raise UserError(
            f"dataset.path={source} looks like a split, but {flat[0]}/ holds images in no class "
            f"folders. Sort them into these, or name dataset.path={source / min(of_folders)}."
        )
    return True


def _refuse_both(place: str, said: Set[str]) -> None:
    if said >= NO_TEST:
        raise UserError(
            f"{place}: a split says train or database, which are the same images here, and not "
            "both. To train on some of the database, give lists: protocol=given."
        )


def _files(folder: Path) -> Iterator[str]:
    """All below it, by their paths from there, in an order that no machine changes.

    Hidden ones are left out. Links to folders are followed, but for those that lead back.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}.")

    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(
            name for name in folders if name[0] != "." and not _leads_back(Path(place, name))
        )
        beneath = Path(place).relative_to(folder)
        yield from ((beneath / name).as_posix() for name in sorted(files) if name[0] != ".")


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to one of those that it lies in."""
    return folder.is_symlink() and os.path.realpath(folder) in map(os.path.realpath, folder.parents)


def _from_table(table: Table, root: Path, mark: str) -> Listing:
    source = table.source
    if not table.rows:
        raise UserError(f"{source} names no image.")
    _check_names(table, root)
    is_test = np.zeros(len(table.rows), dtype=bool)
    others = list(range(1, len(table.columns)))
    for position in [i for i in others if table.columns[i].lower() == SPLIT]:
        others.remove(position)
        is_test = _given_split(table, position)
    if not others:
        raise UserError(f"{source} has no labels: give a column after that of the paths.")
    if len(others) == 1:
        labels, classes = _labels([_apart(value, mark) for value in table.column(others[0])])
    else:
        labels = _multi_hot(table, others)
        classes = tuple(_composed(table.columns[i]) for i in others)
    ids = [_portable(name) for name in table.column(0)]
    paths = [os.path.join(root, name) for name in ids]
    return Listing(source.stem, source, ids, paths, labels, classes, is_test)


def _check_names(table: Table, root: Path) -> None:
    """Whether the first line names the columns, and of text an image; and none of them twice."""
    in_text = table.source.suffix.lower() == ".txt"
    first = table.rows[0][0] if in_text else table.columns[0]
    known = os.path.splitext(first)[1].lower() in Image.registered_extensions()
    is_image = known or os.path.isfile(root / _portable(first))
    if is_image and not in_text:
        raise UserError(
            f"{table.source}: its first line is an image, not the names of the columns."
        )
    if in_text and not is_image:
        raise UserError(
            f"{table.source}: its first line names no image, but '{first}'. Remove the names of "
            "the columns, or give a .csv."
        )
    names = [_composed(name) for name in table.columns]
    names = [SPLIT if name.lower() == SPLIT else name for name in names]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{table.source} has two columns '{twice[0]}'. Rename or remove one.")


def _given_split(table: Table, position: int) -> npt.NDArray[np.bool_]:
    said = [value.strip().lower() for value in table.column(position)]
    for row, value in enumerate(said):
        if value not in TEST | NO_TEST:
            place = table.where(row, position)
            raise UserError(f"{place}: '{value}' is none of train, database, test, query.")
    _refuse_both(f"{table.source}, column '{table.columns[position]}'", set(said))
    return np.array([value in TEST for value in said])


def _apart(value: str, mark: str) -> tuple[str, ...]:
    names = (name.strip() for name in value.split(mark))
    return tuple(name for name in names if name)


def _portable(name: str) -> str:
    return name.replace("\\", "/")


def _composed(name: str) -> str:
    """One spelling of what looks the same: systems write an é as one character or as two."""
    return unicodedata.normalize("NFC", name)


def _labels(
    names: Sequence[tuple[str, ...]],
) -> tuple[npt.NDArray[np.integer], tuple[str, ...]]:
    """Class indices, -1 for none, or multi-hot labels where some have several; and the classes."""
    names = [tuple(map(_composed, some)) for some in names]
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
