"""Images of three lists, as they are: what of them is wrong is reported, not refused."""

import os
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch

from deephash.core.errors import UserError
from deephash.data.files.decoded_cache import decode_files
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split

SIZE = 64  # pixels a side


def from_lists(
    lists: Mapping[str, Path], root: Path | None, folder: Path
) -> tuple[ImageSet, Split]:
    """The images that lists name, and the split that the lists are.

    A line is a file's name, which may hold blanks, and after it 0 or 1 for each class, or nothing.
    Ids are paths. Rows that are repeated, missing or broken are left out; unlabelled ones, and
    those of other labels than an earlier list has, are reported with them, but stay: they are
    queries, or searched, all the same.

    Args:
        lists: by part of the split: `query`, `database`, maybe `train`.
        root: where the paths begin; None: where their list lies.
        folder: for the decoded images, 12 KB each.

    Raises:
        UserError: a list cannot be read, its lines do not fit, or none of its images can be used.
    """
    labels, held, repeated, contradictory = _read(lists, root)
    there = [path for path in labels if os.path.isfile(path)]
    images, broken = decode_files(
        there,
        size=SIZE,
        keep=True,
        folder=folder,
        workers=os.cpu_count() or 1,
    )
    whole = np.array([row not in broken for row in range(len(there))], dtype=bool)
    ids = np.array(there, dtype=str)[whole]
    row_of = {path: row for row, path in enumerate(ids.tolist())}
    parts = {}
    for part, paths in held.items():
        parts[part] = np.array(sorted(row_of[p] for p in paths & row_of.keys()), dtype=np.int64)
        if not len(parts[part]):
            some = "".join(f"; for example {path}" for path in sorted(paths)[:1])
            raise UserError(
                f"{lists[part]}: of the {len(paths)} images that it names none can be used{some}. "
                "Name the folder where the paths begin."
            )
    left_out = {
        "unlabelled": [path for path, values in labels.items() if values and not any(values)],
        "repeated": repeated,
        "contradictory": contradictory,
        "missing": sorted(labels.keys() - there),
        "broken": [f"{there[row]}: {reason}" for row, reason in sorted(broken.items())],
    }
    elsewhere = {
        path: [part for part in ("train", "database") if path in held.get(part, ())]
        for path in sorted(held["query"] - row_of.keys())
    }
    width = max(map(len, labels.values()))
    multi_hot = np.array([labels[path] for path in row_of], dtype=np.uint8)
    image_set = ImageSet(
        name=", ".join(map(str, lists.values())),
        images=images.only(whole),
        labels=torch.from_numpy(multi_hot.reshape(len(ids), width)),
        ids=ids,
        classes=tuple(map(str, range(width))),
        is_test=np.isin(np.arange(len(ids)), parts["query"]),
        report={
            "left_out": {kind: told for kind, told in left_out.items() if told},
            "queries_elsewhere": {path: parts for path, parts in elsewhere.items() if parts},
        },
    )
    none = np.empty(0, dtype=np.int64)
    train = parts.get("train", none)
    return image_set, Split(train, parts["query"], parts["database"], none, none)


def _read(
    lists: Mapping[str, Path], root: Path | None
) -> tuple[dict[str, list[int]], dict[str, set[str]], list[str], list[str]]:
    """Labels by path, the paths of each part, and rows that repeat one of their list or deny one.

    Those that deny one of their own list are told as repeated only.
    """
    labels: dict[str, list[int]] = {}
    held: dict[str, set[str]] = {part: set() for part in lists}
    widths: dict[int, str] = {}
    repeated, contradictory = [], []
    for part, source in lists.items():
        for place, name, values in _lines(source):
            path = str((root or source.parent) / name)
            first = labels.setdefault(path, values)
            if path in held[part]:
                repeated.append(f"{place}: {path}{', with other labels' * (values != first)}")
            elif values != first:
                contradictory.append(f"{place}: {path}, with other labels than in an earlier list")
            held[part].add(path)
            widths.setdefault(len(values), place)
    if len(widths) > 1:
        told = ", ".join(f"{width} at {place}" for width, place in widths.items())
        raise UserError(
            f"values of 0 and 1 after a name: {told}. Give one for each class, or none."
        )
    return labels, held, repeated, contradictory


def _lines(source: Path) -> Iterator[tuple[str, str, list[int]]]:
    """The place, name and labels of each line that is not empty."""
    try:
        text = source.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error.strerror}.") from None
    for number, line in enumerate(text.splitlines(), 1):
        labels = list(takewhile(("0", "1").__contains__, reversed(line.split())))
        name, *values = line.strip().rsplit(maxsplit=len(labels)) or [""]
        if name:
            yield f"{source}, line {number}", name.replace("\\", "/"), list(map(int, values))
