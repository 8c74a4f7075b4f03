"""A folder of class folders, with or without an official split."""

import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from deephash.core.errors import UserError
from deephash.data.files.cleaning import Listing
from deephash.data.files.labels import NEEDS_LABELS, encode_labels
from deephash.data.files.listed_files import walk_files
from deephash.data.files.names import (
    escape_undecodable,
    has_image_suffix,
    is_system_entry,
    join_first,
)

# Names of the parts of an official split, and what they are.
PARTS = {"train": "train", "training": "train", "database": "train"}
PARTS |= {"test": "test", "testing": "test", "query": "test"}
PARTS |= {"val": "val", "valid": "val", "validation": "val", "dev": "val"}

ValAs = Literal["train", "test", "ignore"]

logger = logging.getLogger(__name__)


def list_class_folders(source: Path, val_as: ValAs | None) -> Listing:
    """List the images of a folder of class folders.

    Args:
        source: holds class folders, or parts of a split that do.
        val_as: what the validation part of a split is; see `resolve_parts`.

    Raises:
        UserError: there are no images in class folders, or the parts make no split.
    """
    ids: list[str] = []
    ignored: list[str] = []
    for name in walk_files(source):
        (ids if has_image_suffix(name) else ignored).append(name)
    part_of_folder = _find_parts(source, ids, val_as)
    class_depth = int(bool(part_of_folder))
    parts = [part_of_folder.get(name.partition("/")[0], "train") for name in ids]
    ids = [name for name, part in zip(ids, parts, strict=True) if part != "ignore"]
    parts = [part for part in parts if part != "ignore"]
    folders = [name.split("/")[class_depth:-1] for name in ids]
    if not any(folders):
        found = (
            f"{len(ids):,} images, but no class folder" if ids else "no class folder with images"
        )
        raise UserError(
            f"dataset.path={source}: it contains {found}. {NEEDS_LABELS} Give a folder that holds "
            "a folder of images for each class, or a list of files and labels."
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
    data_name = source.resolve().name
    used = [folder for folder, part in part_of_folder.items() if part != "ignore"]
    empty = _find_empty_folders(source, used, {tuple(parents[:1]) for parents in folders})
    _warn_of_ignored_files(data_name, ignored)
    if empty:
        logger.warning(
            "%s: class folders that hold no image, and are no classes (%s): %s",
            escape_undecodable(data_name),
            f"{len(empty):,}",
            join_first(empty),
        )
    return Listing(
        name=data_name,
        source=source,
        ids=ids,
        paths=[os.path.join(source, name) for name in ids],
        labels=labels,
        classes=classes,
        is_test=np.array([part == "test" for part in parts]),
        notes={"ignored_files": ignored, "class_folders_without_images": empty},
    )


def resolve_parts(place: str, names: Collection[str], val_as: ValAs | None) -> dict[str, str]:
    """Say what each part of a split is: train, test or ignore.

    Args:
        place: what is split, for messages.
        names: of the parts, in lower case.
        val_as: what the validation part is; None: test if there is no other, otherwise train, as
            the run holds validation images out of the training images.

    Raises:
        UserError: two parts have the same meaning.
    """
    roles = {name: role for name, role in PARTS.items() if name in names}
    for role in ("train", "test", "val"):
        same = [name for name in roles if roles[name] == role]
        if len(same) > 1:
            raise UserError(
                f"{place}: a split says {' or '.join(same)}, but not both, as they are the same "
                "images. To train on a part of the database, give lists: protocol=given."
            )
    meaning = val_as or ("train" if "test" in roles.values() else "test")
    for name, role in roles.items():
        if role != "val":
            continue
        roles[name] = meaning
        if val_as is None:
            images = {"train": "training images", "test": "test images"}[meaning]
            told = (
                f"{place}: '{name}' is used as {images}; dataset.val_as=train|test|ignore chooses"
            )
            logger.warning("%s", escape_undecodable(told))
    return roles


def _find_parts(source: Path, images: Sequence[str], val_as: ValAs | None) -> Mapping[str, str]:
    """What each folder is, if the images lie in the parts of an official split; otherwise empty."""
    top_folders = {name.partition("/")[0] for name in images if "/" in name}
    nested_folders = {name.partition("/")[0] for name in images if name.count("/") > 1}
    names = {folder.lower() for folder in top_folders}
    kinds = {PARTS.get(name, "unknown") for name in names}
    if not nested_folders and "unknown" not in kinds and len(kinds) > 1:
        raise UserError(
            f"dataset.path={source} looks like a split into {', '.join(sorted(names))}, but holds "
            "no class folders. Sort the images of each part into class folders, or give a list of "
            "files and labels."
        )
    if not any(folder.lower() in PARTS for folder in nested_folders):
        return {}
    if "unknown" in kinds or "train" not in kinds or len(kinds) == 1:
        raise UserError(
            f"dataset.path={source} looks like a split into {', '.join(sorted(names))}. A split is "
            "train/ and test/, or database/ and query/, of class folders, optionally with val/. "
            "Rename the other folders, or move them into these."
        )
    flat_folders = sorted(top_folders - nested_folders)
    if flat_folders:
        raise UserError(
            f"dataset.path={source} looks like a split, but {flat_folders[0]}/ holds images that "
            "are not in class folders. Sort them into class folders, or use one part alone: "
            f"dataset.path={source / min(nested_folders)}."
        )
    roles = resolve_parts(f"dataset.path={source}", names, val_as)
    return {folder: roles[folder.lower()] for folder in top_folders}


def _find_empty_folders(
    source: Path, parts: Sequence[str], used: Collection[tuple[str, ...]]
) -> list[str]:
    """Class folders in none of which there is an image."""
    folders = [source / part for part in parts] or [source]
    names = {
        entry.name
        for folder in folders
        for entry in os.scandir(folder)
        if entry.is_dir() and not is_system_entry(entry.name)
    }
    return sorted(name for name in names if (name,) not in used)


def _warn_of_ignored_files(data_name: str, ignored: Sequence[str]) -> None:
    if not ignored:
        return
    counts = Counter(os.path.splitext(name)[1] or "without a suffix" for name in ignored)
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common())
    logger.warning(
        "%s: ignoring files without the suffix of an image: %s; for example %s",
        escape_undecodable(data_name),
        escape_undecodable(kinds),
        escape_undecodable(ignored[0]),
    )
