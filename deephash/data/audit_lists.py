"""Lists to audit: their images and split as they are, with a report of what is wrong with them."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from deephash.core.errors import UserError
from deephash.data.files.decoded_cache import decode_files
from deephash.data.files.listed_files import find_listed_files
from deephash.data.files.names import escape_undecodable
from deephash.data.files.split_lists import read_list
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split

logger = logging.getLogger(__name__)

SIZE = 64  # side of the decoded images in pixels


@dataclass
class _Contents:
    """What the lists say.

    Attributes:
        labels: of each path, a 0 or 1 per class, from the first list that names it.
        paths: of each part of the split.
        repeated: lines that name an image again in the same list.
        contradictory: lines that give an image other labels than an earlier list.
        hints: why a file is missing, by part.
    """

    labels: dict[str, list[int]] = field(default_factory=dict)
    paths: dict[str, set[str]] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    contradictory: list[str] = field(default_factory=list)
    hints: dict[str, str] = field(default_factory=dict)


def load_audit_lists(
    lists: Mapping[str, Path], root: Path | None, decoded_dir: Path
) -> tuple[ImageSet, Split]:
    """Load the images that lists name, and the split that the lists make.

    A line is the name of a file, which may hold blanks, and then a 0 or 1 per class or nothing. The
    ids of the images are their paths. Missing and broken images are left out; unlabelled ones and
    those with contradictory labels are reported but remain, as they are searched all the same.

    Args:
        lists: by part of the split: `query`, `database` and, optionally, `train`.
        root: folder that the names are relative to; None for the folder of their list.
        decoded_dir: folder for the decoded images, 12 KB each.

    Raises:
        UserError: a list cannot be read, its lines do not fit together, or none of its images can
            be used.
    """
    contents = _read_lists(lists, root)
    labels = contents.labels
    existing = [path for path in labels if os.path.isfile(path)]
    images, broken = decode_files(
        existing,
        size=SIZE,
        cache_decoded=True,
        decoded_dir=decoded_dir,
        pixel_range="file",
        workers=os.cpu_count() or 1,
    )
    is_usable = np.array([row not in broken for row in range(len(existing))], dtype=bool)
    ids = np.array(existing, dtype=str)[is_usable]
    row_of_path = {path: row for row, path in enumerate(ids.tolist())}
    rows = {
        part: _find_rows(paths, row_of_path, lists[part], contents.hints.get(part, ""))
        for part, paths in contents.paths.items()
    }
    left_out = {
        "unlabelled": [path for path, values in labels.items() if values and not any(values)],
        "repeated": contents.repeated,
        "contradictory": contents.contradictory,
        "missing": sorted(labels.keys() - existing),
        "broken": [f"{existing[row]}: {reason}" for row, reason in sorted(broken.items())],
    }
    other_parts = {
        path: [part for part in ("train", "database") if path in contents.paths.get(part, ())]
        for path in sorted(contents.paths["query"] - row_of_path.keys())
    }
    class_count = max(map(len, labels.values()))
    multi_hot = np.array([labels[path] for path in row_of_path], dtype=np.uint8)
    image_set = ImageSet(
        name=", ".join(map(str, lists.values())),
        images=images.select(is_usable),
        # A single column of 0 and 1 tells two classes apart.
        labels=torch.from_numpy(
            multi_hot[:, 0] if class_count == 1 else multi_hot.reshape(len(ids), class_count)
        ),
        ids=ids,
        classes=("0", "1") if class_count == 1 else tuple(map(str, range(class_count))),
        is_test=np.isin(np.arange(len(ids)), rows["query"]),
        report={
            "left_out": {reason: names for reason, names in left_out.items() if names},
            "queries_in_other_parts": {path: parts for path, parts in other_parts.items() if parts},
        },
    )
    none = np.empty(0, dtype=np.int64)
    return image_set, Split(rows.get("train", none), rows["query"], rows["database"])


def _find_rows(
    paths: set[str], row_of_path: Mapping[str, int], source: Path, hint: str
) -> np.ndarray:
    rows = np.array(sorted(row_of_path[p] for p in paths & row_of_path.keys()), dtype=np.int64)
    if not len(rows):
        example = "".join(f", for example {path}" for path in sorted(paths)[:1])
        raise UserError(
            f"{source}: none of the {len(paths)} images that it names can be used{example}. {hint} "
            "Set root (--root) to the folder that the names are relative to."
        )
    if hint:
        told = (
            f"{source}: {len(paths) - len(rows):,} of {len(paths):,} images cannot be used. {hint}"
        )
        logger.warning("%s", escape_undecodable(told))
    return rows


def _read_lists(lists: Mapping[str, Path], root: Path | None) -> _Contents:
    contents = _Contents(paths={part: set() for part in lists})
    first_place_of_count: dict[int, str] = {}
    for part, source in lists.items():
        paths = contents.paths[part]
        images = read_list(source)
        files, hint = find_listed_files(
            source,
            root or source.parent,
            [image.place for image in images],
            [image.spellings for image in images],
        )
        if hint:
            contents.hints[part] = hint
        for image, file in zip(images, files, strict=True):
            path = os.path.normpath(file)
            is_whole_line = file.endswith(image.text.strip())  # a name that ends like labels
            labels = [] if is_whole_line else image.labels
            first_labels = contents.labels.setdefault(path, labels)
            differs = labels != first_labels
            if path in paths:
                contents.repeated.append(f"{image.place}: {path}{', with other labels' * differs}")
            elif differs:
                contents.contradictory.append(
                    f"{image.place}: {path}, with other labels than in an earlier list"
                )
            paths.add(path)
            first_place_of_count.setdefault(len(labels), image.place)
    if len(first_place_of_count) > 1:
        counts = ", ".join(f"{count} at {place}" for count, place in first_place_of_count.items())
        raise UserError(
            f"The number of labels (0 or 1) after a name differs: {counts}. Give one for each "
            "class, or none."
        )
    return contents
