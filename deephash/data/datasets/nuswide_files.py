"""The official annotation files of NUS-WIDE."""

import codecs
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError
from deephash.data.files.name_index import NameIndex
from deephash.data.files.names import escape_undecodable
from deephash.data.files.split_lists import read_list

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


def read_official_files(folder: Path, max_invalid_fraction: float) -> Annotations:
    """Read the official files, as they are unpacked.

    Folders and files may be in another letter case, and folders in a folder of the same name.

    Args:
        folder: holds `ImageList/` and, in `Groundtruth/` or directly, `AllLabels/` or
            `TrainTestLabels/`.
        max_invalid_fraction: how many of the official test images may be unknown.

    Raises:
        UserError: a file is missing, or does not fit the others.
    """
    truth = find_folder(folder, "Groundtruth")
    truth = truth if truth.is_dir() else folder
    lists = find_folder(folder, "ImageList")
    all_labels, separate = find_folder(truth, "AllLabels"), find_folder(truth, "TrainTestLabels")
    if all_labels.is_dir():
        parts = [_read_part(lists, all_labels, "", "Imagelist.txt")]
    elif separate.is_dir():
        parts = [
            _read_part(lists, separate, f"_{part}", f"{part}Imagelist.txt")
            for part in ("Train", "Test")
        ]
    else:
        raise UserError(
            f"dataset.folder={folder} holds neither Groundtruth/AllLabels nor "
            "Groundtruth/TrainTestLabels. Unpack the official files there, name their folder with "
            "dataset.folder=..., or name lists of images with dataset.lists=[train.txt,test.txt]."
        )
    names = [name for part, _, _ in parts for name in part]
    test_list = find_entry(lists, "TestImagelist.txt")
    return Annotations(
        names=names,
        labels=np.concatenate([labels for _, labels, _ in parts]),
        concepts=CONCEPTS,
        is_test=_find_test_images(test_list, names, max_invalid_fraction),
        invalid_labels=[label for _, _, invalid_labels in parts for label in invalid_labels],
    )


def find_entry(folder: Path, name: str) -> Path:
    """The file or folder of a name in upper or lower case; `folder / name` if there is none."""
    if (folder / name).exists() or not folder.is_dir():
        return folder / name
    similar = [entry for entry in os.listdir(folder) if entry.lower() == name.lower()]
    return folder / (similar[0] if len(similar) == 1 else name)


def find_folder(folder: Path, name: str) -> Path:
    """Like `find_entry`; of a folder in a folder of the same name the inner one."""
    outer = find_entry(folder, name)
    inner = find_entry(outer, name)
    return inner if inner.is_dir() else outer


def _read_part(
    lists: Path, label_folder: Path, suffix: str, list_name: str
) -> tuple[list[str], Labels, list[str]]:
    """Names, labels and invalid labels of the images of one list."""
    names = [image.name for image in read_list(find_entry(lists, list_name))]
    labels = np.empty((len(names), len(CONCEPTS)), dtype=np.uint8)
    invalid_labels: list[str] = []
    for column, concept in enumerate(CONCEPTS):
        path = find_entry(label_folder, f"Labels_{concept}{suffix}.txt")
        values, invalid_values = _read_label_column(path, len(names))
        if len(values) != len(names):
            raise UserError(
                f"{path} has {len(values):,} lines, but {list_name} names {len(names):,} images."
            )
        labels[:, column] = values
        invalid_labels += invalid_values
    return names, labels, invalid_labels


def _find_test_images(
    path: Path, names: list[str], max_invalid_fraction: float
) -> npt.NDArray[np.bool_]:
    """Which images are in the official test list: bool (n,); none if there is no such list."""
    if not path.is_file():
        return np.zeros(len(names), dtype=bool)
    images = read_list(path)
    known = list(dict.fromkeys(names))  # a list may repeat images
    index = NameIndex(known)
    rows = index.find_images(images)
    test_names = {known[row] for row in rows if row is not None}
    is_test = np.array([name in test_names for name in names])
    unknown = [image.name for image, row in zip(images, rows, strict=True) if row is None]
    if not test_names:
        raise UserError(
            f"{path} names none of the images, whose names are like {names[0]}. Write them as in "
            "the other lists, or remove the file: then there are no official test images."
        )
    if len(unknown) > max_invalid_fraction * len(images):
        raise UserError(
            f"{path} names {len(images):,} images, {len(unknown):,} of which are in no other list; "
            f"for example {unknown[0]}. {index.explain_missing(unknown[0])} Otherwise they would "
            "be trained on. Correct the list, or raise dataset.max_invalid_fraction="
            f"{max_invalid_fraction}."
        )
    if unknown:
        logger.warning(
            "nuswide: %s of %s official test images are in no other list; for example %s",
            f"{len(unknown):,}",
            f"{len(images):,}",
            escape_undecodable(unknown[0]),
        )
    return is_test


def _read_label_column(path: Path, image_count: int) -> tuple[Labels, list[str]]:
    """One label per line, and places and values of those that are neither 0 nor 1.

    Blank lines are skipped if there are labels for all images without them.
    """
    try:
        text = path.read_bytes().removeprefix(codecs.BOM_UTF8).rstrip()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    digits = np.frombuffer(text.translate(None, b" \t\r\n"), dtype=np.uint8) - ord("0")
    line_count = text.count(b"\n") + 1
    if len(digits) == line_count and digits.max(initial=0) <= 1:
        return digits, []
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    labelled = [(number, value) for number, value in lines if value]
    if len(labelled) == image_count:
        lines = labelled
    invalid_values = [
        f"{path.name}, line {number}: {value.decode(errors='replace')[:20]!r}"
        for number, value in lines
        if value not in (b"0", b"1")
    ]
    return np.array([value == b"1" for _, value in lines], dtype=np.uint8), invalid_values
