"""Your own images: a folder of class folders, or a list of files and labels."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from deephash.core.errors import UserError
from deephash.data.files.cleaning import DecodingOptions, Listing
from deephash.data.files.labels import (
    encode_labels,
    normalize_name,
    read_class_names,
    read_multi_hot,
)
from deephash.data.files.names import escape_undecodable, use_forward_slashes
from deephash.data.files.tables import SUFFIXES, Table, read_table
from deephash.data.image_set import ImageSet

TEST_NAMES, TRAIN_NAMES = {"test", "query"}, {"train", "database"}  # parts of an official split
UNSUPPORTED_NAMES = {"training", "testing", "val", "valid", "validation"}  # reported, not read
SPLIT_COLUMN = "split"

logger = logging.getLogger(__name__)


def image_folder(
    *,
    path: str,
    root: str | None,
    label_separator: str | None,
    size: int,
    cache_decoded: bool,
    decoded_dir: str,
    workers: int | None,
    max_invalid_fraction: float,
) -> ImageSet:
    """Load images from a folder of class folders, or from a list.

    A folder holds a folder of images for each class, or `train/` and `test/` (or `database/` and
    `query/`) with such class folders. A list is CSV, TSV or Parquet with named columns, the first
    of which holds the image's path; or text without column names, with paths and labels separated
    by blanks. The other columns are one of labels, several of an image separated by
    `label_separator`, or one of 0 and 1 per class. A column named `split` holds `train`,
    `database`, `test` or `query`.

    Labels are class indices if no image has several of them, otherwise multi-hot.

    Args:
        path: the folder or list.
        root: folder that the paths in a list are relative to; None for the folder of the list.
        label_separator: separates several labels of one image; None takes each label as one
            class. Lists in the syntax of Python or JSON are read without it.
        size: side of the decoded images in pixels.
        cache_decoded: whether to keep the decoded images, as one memory-mapped file.
        decoded_dir: folder for them and for the report of unusable images.
        workers: number of threads or processes that decode; None for the number of CPU cores.
        max_invalid_fraction: how many of the images may be missing, broken, unlabelled or listed
            twice, from 0 to 1.

    Raises:
        UserError: the folder, list or settings are not as described, or too many images cannot be
            used.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cat", "dog"):
        ...         Path(folder, "photos", name).mkdir(parents=True)
        ...         Image.new("RGB", (40, 30)).save(Path(folder, "photos", name, "0.jpg"))
        ...     image_set = image_folder(
        ...         path=f"{folder}/photos",
        ...         root=None,
        ...         label_separator=";",
        ...         size=16,
        ...         cache_decoded=True,
        ...         decoded_dir=f"{folder}/decoded",
        ...         workers=1,
        ...         max_invalid_fraction=0.0,
        ...     )
        >>> image_set.ids.tolist(), image_set.classes, image_set.images.shape
        (['cat/0.jpg', 'dog/0.jpg'], ('cat', 'dog'), (2, 3, 16, 16))
    """
    if label_separator is not None and not label_separator:
        raise UserError(
            "dataset.label_separator='': give the text that separates several labels of one image, "
            "or null if each label is one class."
        )
    workers = workers or os.cpu_count() or 1
    options = DecodingOptions(size, cache_decoded, Path(decoded_dir), workers, max_invalid_fraction)
    source = Path(path)
    if source.is_dir():
        listing = _list_folder(source)
    elif source.suffix.lower() in SUFFIXES:
        root_folder = Path(root) if root else source.parent
        listing = _list_table(read_table(source), root_folder, label_separator)
    else:
        raise UserError(
            f"dataset.path={path}: no such folder, and not the name of a list. Give a folder of "
            f"class folders, or a list ({', '.join(SUFFIXES)})."
        )
    return listing.load(options)


def _list_folder(source: Path) -> Listing:
    image_suffixes = Image.registered_extensions()
    ids: list[str] = []
    ignored: list[str] = []
    for name in _walk_files(source):
        (ids if _suffix(name) in image_suffixes else ignored).append(name)
    class_depth = int(_has_split(source, ids))
    folders = [name.split("/")[class_depth:-1] for name in ids]
    if not any(folders):
        raise UserError(
            f"dataset.path={source}: it contains no class folder with images. Give a folder that "
            "holds a folder of images for each class, or a list of files and labels."
        )
    if all(len(parents) != 1 for parents in folders):
        deeper = next(name for name, parents in zip(ids, folders, strict=True) if parents)
        subfolder = source / "/".join(deeper.split("/")[: class_depth + 1])
        raise UserError(
            f"dataset.path={source}: no class folder holds images directly, they all lie deeper, "
            f"for example {deeper}. Name the folder of the class folders: dataset.path="
            f"{subfolder}?"
        )
    # Images outside of class folders have no label.
    labels, classes = encode_labels([tuple(parents[:1]) for parents in folders])
    is_test = [class_depth == 1 and name.split("/")[0].lower() in TEST_NAMES for name in ids]
    data_name = source.resolve().name
    if ignored:
        counts = Counter(os.path.splitext(name)[1] or "without a suffix" for name in ignored)
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common())
        logger.warning(
            "%s: ignoring files without the suffix of an image: %s; for example %s",
            escape_undecodable(data_name),
            escape_undecodable(kinds),
            escape_undecodable(ignored[0]),
        )
    return Listing(
        name=data_name,
        source=source,
        ids=ids,
        paths=[os.path.join(source, name) for name in ids],
        labels=labels,
        classes=classes,
        is_test=np.array(is_test),
        notes={"ignored_files": ignored},
    )


def _has_split(source: Path, images: Sequence[str]) -> bool:
    """Whether the images lie in the parts of an official split, each of class folders."""
    top_folders = {name.partition("/")[0] for name in images if "/" in name}
    nested_folders = {name.partition("/")[0] for name in images if name.count("/") > 1}
    part_names = TEST_NAMES | TRAIN_NAMES | UNSUPPORTED_NAMES
    if not any(folder.lower() in part_names for folder in nested_folders):
        return False
    names = {folder.lower() for folder in top_folders}
    if not names & TEST_NAMES or not names & TRAIN_NAMES or names - TEST_NAMES - TRAIN_NAMES:
        raise UserError(
            f"dataset.path={source} looks like a split into {', '.join(sorted(names))}. A split is "
            "train/ and test/, or database/ and query/, of class folders. Rename the other "
            "folders, or move them into these; validation images are held out of the training "
            "images."
        )
    _check_train_names(f"dataset.path={source}", names)
    flat_folders = sorted(top_folders - nested_folders)
    if flat_folders:
        raise UserError(
            f"dataset.path={source} looks like a split, but {flat_folders[0]}/ holds images that "
            "are not in class folders. Sort them into class folders, or use one part alone: "
            f"dataset.path={source / min(nested_folders)}."
        )
    return True


def _check_train_names(place: str, names: Set[str]) -> None:
    if names >= TRAIN_NAMES:
        raise UserError(
            f"{place}: a split says train or database, but not both, as they are the same images. "
            "To train on a part of the database, give lists: protocol=given."
        )


def _walk_files(folder: Path) -> Iterator[str]:
    """Relative paths of all files, sorted; without hidden ones.

    Links to folders are followed, unless they lead back to a folder above them.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}.")

    for parent, subfolders, files in os.walk(folder, onerror=refuse, followlinks=True):
        subfolders[:] = sorted(
            name for name in subfolders if name[0] != "." and not _leads_back(Path(parent, name))
        )
        relative_parent = Path(parent).relative_to(folder)
        yield from ((relative_parent / name).as_posix() for name in sorted(files) if name[0] != ".")


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to one of its parents."""
    return folder.is_symlink() and os.path.realpath(folder) in map(os.path.realpath, folder.parents)


def _list_table(table: Table, root: Path, label_separator: str | None) -> Listing:
    source = table.source
    if not table.rows:
        raise UserError(f"{source} names no image.")
    _check_header(table, root)
    is_test = np.zeros(len(table.rows), dtype=bool)
    label_columns = list(range(1, len(table.columns)))
    for column in [i for i in label_columns if table.columns[i].lower() == SPLIT_COLUMN]:
        label_columns.remove(column)
        is_test = _read_split_column(table, column)
    if not label_columns:
        raise UserError(f"{source} has no labels: add a column after that of the paths.")
    if len(label_columns) == 1:
        names = read_class_names(table, label_columns[0], label_separator)
        labels, classes = encode_labels(names)
    else:
        labels = read_multi_hot(table, label_columns)
        classes = tuple(normalize_name(table.columns[i]) for i in label_columns)
    ids = [use_forward_slashes(name) for name in table.column(0)]
    paths = [os.path.join(root, name) for name in ids]
    return Listing(source.stem, source, ids, paths, labels, classes, is_test)


def _check_header(table: Table, root: Path) -> None:
    """Check that the first line holds unique column names or, in plain text, an image."""
    is_text = table.source.suffix.lower() == ".txt"
    first = table.rows[0][0] if is_text else table.columns[0]
    is_image = _suffix(first) in Image.registered_extensions() or os.path.isfile(
        root / use_forward_slashes(first)
    )
    if is_image and not is_text:
        raise UserError(
            f"{table.source}: the first line is an image, not column names. Insert a line of "
            "column names above it."
        )
    if is_text and not is_image:
        raise UserError(
            f"{table.source}: the first line does not begin with an image, but '{first}'. Remove "
            "the column names, or give a .csv."
        )
    names = [normalize_name(name) for name in table.columns]
    names = [SPLIT_COLUMN if name.lower() == SPLIT_COLUMN else name for name in names]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise UserError(f"{table.source} has two columns '{repeated[0]}'. Rename or remove one.")


def _read_split_column(table: Table, column: int) -> npt.NDArray[np.bool_]:
    values = [value.strip().lower() for value in table.column(column)]
    for row, value in enumerate(values):
        if value not in TEST_NAMES | TRAIN_NAMES:
            place = table.describe_cell(row, column)
            raise UserError(f"{place}: '{value}' is not one of train, database, test, query.")
    _check_train_names(f"{table.source}, column '{table.columns[column]}'", set(values))
    return np.array([value in TEST_NAMES for value in values])


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
