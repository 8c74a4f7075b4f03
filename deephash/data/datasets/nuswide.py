"""NUS-WIDE (Chua et al. 2009): 269,648 photographs of Flickr, 81 concepts, several an image."""

import os
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np

from deephash.core.errors import UserError
from deephash.data.datasets.nuswide_files import CONCEPTS, FREQUENT, from_lists, official
from deephash.data.files.cleaning import DecodingOptions, Listing
from deephash.data.image_set import ImageSet

SUBSETS = {"tc21": list(FREQUENT), "tc10": list(FREQUENT)[:10], "all81": CONCEPTS}
IMAGE_FOLDERS = ("Flickr", "images", "image")


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
    tolerated: float,
) -> ImageSet:
    """The images that have a concept of the subset.

    Official files and lists give the same image set: ids are file names, and rows are in their
    order.

    A value that is neither 0 nor 1 counts as 0. Two files of one Flickr id are both kept, as the
    published counts have them.

    Args:
        folder: holds `Groundtruth/` and `ImageList/`, or the lists; and `Flickr/`, `images/` or
            `image/`.
        lists: names of lists there, read in place of the official files.
        order: of the lists' columns; None tells it by how frequent they are.
        subset: the 21 most frequent concepts, the 10, or all 81.
        size: see `DecodingOptions`, and so are the others.
        cache_decoded: see there.
        decoded_dir: see there.
        workers: see there; None for the number of cores.
        tolerated: see there; of impossible values also, counted by rows.

    Raises:
        UserError: a file is missing or does not fit the others, or too many images are missing.
    """
    place = Path(folder)
    said = from_lists(place, lists, order) if lists else official(place)
    wanted = SUBSETS[subset]
    lacking = [name for name in wanted if name not in said.concepts]
    if lacking:
        raise UserError(
            f"dataset.subset={subset}: there are no labels of {', '.join(lacking)} in {place}."
        )
    labels = said.labels[:, [list(said.concepts).index(name) for name in wanted]]
    ids = [name.rpartition("/")[2] for name in said.names]
    chosen = np.flatnonzero(labels.any(axis=1))
    chosen = chosen[np.argsort(np.array(ids)[chosen], kind="stable")]
    if len(said.impossible) > tolerated * len(ids):
        raise UserError(
            f"{place}: {len(said.impossible):,} labels are neither 0 nor 1, more than "
            f"dataset.tolerated={tolerated} of the {len(ids):,} rows; for example "
            f"{said.impossible[0]}."
        )
    if said.impossible:
        print(f"nuswide: {len(said.impossible)} labels are neither 0 nor 1, and count as 0")
    if said.also_elsewhere:
        print(f"nuswide: {len(said.also_elsewhere):,} test images are in other lists too")
    there = _files(place)
    names = dict.fromkeys(ids[row] for row in chosen)  # a list may repeat rows
    flickr = Counter(name.rpartition("_")[2] for name in names)
    listing = Listing(
        name="nuswide",
        source=place,
        ids=[ids[row] for row in chosen],
        paths=[
            there.get(said.names[row]) or there.get(ids[row]) or f"{place}/{said.names[row]}"
            for row in chosen
        ],
        labels=labels[chosen],
        classes=tuple(wanted),
        is_test=said.is_test[chosen],
        notes={
            "subset": subset,
            "rows_in_all": len(ids),
            "rows_without_a_concept_of_the_subset": len(ids) - len(chosen),
            "impossible_labels_counted_as_0": said.impossible,
            "test_images_in_other_lists": said.also_elsewhere,
            "flickr_ids_of_several_files": [name for name, count in flickr.items() if count > 1],
            "images_of_each_concept": dict(
                zip(wanted, labels.sum(axis=0, dtype=int).tolist(), strict=True)
            ),
        },
    )
    cores = workers or os.cpu_count() or 1
    return listing.image_set(
        DecodingOptions(size, cache_decoded, Path(decoded_dir), cores, tolerated)
    )


def _files(place: Path) -> dict[str, str]:
    """The images by path below their folder and by name; links are followed, in no circle."""
    folder = next((place / name for name in IMAGE_FOLDERS if (place / name).is_dir()), None)
    if folder is None:
        raise UserError(
            f"dataset=nuswide: {place} holds no images: they lie in {', '.join(IMAGE_FOLDERS)}."
        )
    found: dict[str, str] = {}
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(parent) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        beneath = os.path.relpath(parent, folder).replace(os.sep, "/")
        for name in names:
            found[name] = found[f"{beneath}/{name}"] = f"{parent}/{name}"
    return found
