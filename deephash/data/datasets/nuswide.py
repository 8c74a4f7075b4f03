"""NUS-WIDE (Chua et al. 2009): 269,648 Flickr photographs with several of 81 concepts each."""

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np

from deephash.core.errors import UserError
from deephash.data.datasets.nuswide_files import (
    CONCEPTS,
    FREQUENT,
    find_folder,
    read_official_files,
)
from deephash.data.datasets.nuswide_lists import read_label_lists
from deephash.data.files.cleaning import DecodingOptions, Listing
from deephash.data.files.name_index import NameIndex
from deephash.data.files.names import has_image_suffix, is_system_entry
from deephash.data.files.pixel_range import PixelRangeSetting, parse_pixel_range
from deephash.data.image_set import ImageSet

SUBSETS = {"tc21": list(FREQUENT), "tc10": list(FREQUENT)[:10], "all81": CONCEPTS}
NOTE_WITHOUT_LABEL = "images_without_a_concept_of_the_subset"
IMAGE_FOLDERS = ("Flickr", "images", "image")

logger = logging.getLogger(__name__)


def nuswide(
    *,
    folder: str,
    lists: list[str],
    order: Literal["frequency", "alphabetical"] | None,
    subset: Literal["tc21", "tc10", "all81"],
    size: int,
    cache_decoded: bool,
    decoded_dir: str,
    workers: int | None,
    max_invalid_fraction: float,
    label_files: list[str],
    pixel_range: PixelRangeSetting,
    max_pixels: int | None,
) -> ImageSet:
    """Load the images that have a concept of the subset.

    The official files and lists give the same image set: ids are file names, and images are in the
    order of their ids. A label that is neither 0 nor 1 counts as 0. Two files with the same Flickr
    id are both kept, as in the published counts.

    Args:
        folder: holds `Groundtruth/` and `ImageList/`, or the lists; and `Flickr/`, `images/` or
            `image/`.
        lists: names of lists there, read in place of the official files.
        order: of the columns of the lists; None infers it from their counts.
        subset: the 21 most frequent concepts, the 10 most frequent ones, or all 81.
        size: side of the decoded images in pixels.
        cache_decoded: whether to keep the decoded images, as one memory-mapped file.
        decoded_dir: folder for them and for the report of unusable images.
        workers: number of threads or processes that decode; None for the number of CPU cores.
        max_invalid_fraction: how many images may be missing, broken or listed twice, and how many
            labels may be invalid, as a fraction of the images.
        label_files: names of the files with the labels of each list (text, .npy, .npz or .mat), if
            the lists hold paths alone.
        pixel_range: which values of images of over 8 bits become 0 to 255: `full`, 0 to 65,535;
            `file`, from the lowest to the highest of the file; or `[lowest, highest]`.
        max_pixels: the most pixels that a file may have; None for Pillow's limit of 179 million.

    Raises:
        UserError: a file is missing or does not fit the others, or too many images or labels are
            invalid.
    """
    place = Path(folder)
    if label_files and not lists:
        raise UserError("dataset.label_files: name the lists of their images with dataset.lists.")
    if lists:
        annotations = read_label_lists(place, lists, order, label_files)
    else:
        annotations = read_official_files(place, max_invalid_fraction)
    concepts = SUBSETS[subset]
    absent = [name for name in concepts if name not in annotations.concepts]
    if absent:
        raise UserError(
            f"dataset.subset={subset}: there are no labels of {', '.join(absent)} in {place}."
        )
    columns = [list(annotations.concepts).index(name) for name in concepts]
    labels = annotations.labels[:, columns]
    ids = [name.rpartition("/")[2] for name in annotations.names]
    rows = np.flatnonzero(labels.any(axis=1))
    rows = rows[np.argsort(np.array(ids)[rows], kind="stable")]
    invalid_labels = annotations.invalid_labels
    if len(invalid_labels) > max_invalid_fraction * len(ids):
        raise UserError(
            f"{place}: {len(invalid_labels):,} labels are neither 0 nor 1, more than "
            f"dataset.max_invalid_fraction={max_invalid_fraction} of the {len(ids):,} images "
            f"allows; for example {invalid_labels[0]}."
        )
    if invalid_labels:
        logger.warning(
            "nuswide: %s labels are neither 0 nor 1, and count as 0", f"{len(invalid_labels):,}"
        )
    shared_test_images = annotations.test_images_in_other_lists
    if shared_test_images:
        logger.warning(
            "nuswide: %s test images are in other lists too", f"{len(shared_test_images):,}"
        )
    image_folder, files = _find_image_files(place)
    used_names = [annotations.names[row] for row in rows]
    index = NameIndex(files)
    found = index.find_all(
        place,
        [f"dataset.folder={place}"] * len(rows),
        [(name, name.rpartition("/")[2]) for name in used_names],
    )
    missing = next((n for n, row in zip(used_names, found, strict=True) if row is None), None)
    unique_ids = dict.fromkeys(ids[row] for row in rows)  # a list may repeat images
    flickr_ids = Counter(_flickr_id(image_id) for image_id in unique_ids)
    listing = Listing(
        name="nuswide",
        source=place,
        ids=[ids[row] for row in rows],
        paths=[
            f"{image_folder}/{name if position is None else files[position]}"
            for name, position in zip(used_names, found, strict=True)
        ],
        labels=labels[rows],
        classes=tuple(concepts),
        is_test=annotations.is_test[rows],
        missing_hint="" if missing is None else index.explain_missing(missing),
        notes={
            "subset": subset,
            "rows_in_total": len(ids),
            "rows_without_a_concept_of_the_subset": len(ids) - len(rows),
            NOTE_WITHOUT_LABEL: sorted({*ids} - unique_ids.keys()),
            "invalid_labels_counted_as_0": invalid_labels,
            "test_images_in_other_lists": shared_test_images,
            "flickr_ids_of_several_files": [i for i, count in flickr_ids.items() if count > 1],
            "images_per_concept": dict(
                zip(concepts, labels.sum(axis=0, dtype=int).tolist(), strict=True)
            ),
        },
    )
    options = DecodingOptions(
        size,
        cache_decoded,
        decoded_dir,
        workers,
        max_invalid_fraction,
        parse_pixel_range(pixel_range),
        max_pixels,
    )
    return listing.load(options)


def _flickr_id(name: str) -> str:
    """The number of the photograph: `0001_2124494179.jpg`, or as Flickr, number_secret_m.jpg."""
    *others, last = name.partition(".")[0].split("_")
    if len(last) == 1 and last.isalpha() and len(others) > 1:
        return others[-2]  # the secret and the size come after it
    return last if last.isdigit() or not others else others[-1]


def _find_image_files(place: Path) -> tuple[Path, list[str]]:
    """The folder that holds most images, and their relative paths.

    Links to folders are followed, but each folder is visited once.
    """
    existing = [folder for name in IMAGE_FOLDERS if (folder := find_folder(place, name)).is_dir()]
    found = [(folder, _walk_images(folder)) for folder in existing]
    folder, files = max(found, key=lambda item: len(item[1]), default=(place, []))
    if files:
        return folder, files
    raise UserError(
        f"dataset.folder={place} holds no images: it should contain a folder named "
        f"{', '.join(IMAGE_FOLDERS[:-1])} or {IMAGE_FOLDERS[-1]} with the photographs"
        f"{f', but there are none in {folder}' if existing else ''}."
    )


def _walk_images(folder: Path) -> list[str]:
    files: list[str] = []
    visited: set[str] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(parent) in visited:
            subfolders.clear()
            continue
        visited.add(os.path.realpath(parent))
        subfolders[:] = [name for name in subfolders if not is_system_entry(name)]
        relative_parent = os.path.relpath(parent, folder)
        prefix = "" if relative_parent == "." else f"{relative_parent}/"
        files += [f"{prefix}{name}" for name in names if has_image_suffix(name)]
    return files
