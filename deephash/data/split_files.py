"""A split as lists of ids with checksums: written, and held against the images."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from deephash.core.errors import UserError
from deephash.core.io import atomic_write, write_json
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split

PARTS = ("query", "train", "database")  # a list each
FACTS = "split.json"


def write(folder: Path, image_set: ImageSet, split: Split, drawn: dict[str, Any]) -> None:
    """Write a split as lists of ids, which `protocol=given` reads, and what it is as JSON.

    Args:
        folder: for them.
        image_set: whose split it is.
        split: of it; validation is not written.
        drawn: what it was drawn by, plain values.

    Raises:
        UserError: the folder holds a split, or cannot be written to.
    """
    names = [*(f"{part}.txt" for part in PARTS), FACTS]
    there = [name for name in names if (folder / name).exists()]
    if there:
        raise UserError(
            f"{folder} already holds {', '.join(there)}. Name another folder, or remove them."
        )
    try:
        for part in PARTS:
            lines = "".join(f"{name}\n" for name in image_set.ids[split.arrays()[part]])
            with atomic_write(folder / f"{part}.txt") as path:
                path.write_bytes(lines.encode("utf-8", "surrogateescape"))
        write_json(folder / FACTS, _facts(image_set, split) | drawn)
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror}.") from None


def differences(folder: Path, image_set: ImageSet) -> list[str]:
    """What a written split is not, a sentence each: none where it fits the images and its JSON.

    Raises:
        UserError: it cannot be read.
    """
    said, listed = _read(folder)
    index = {name: row for row, name in enumerate(image_set.ids.tolist())}
    wrong, rows = [], {}
    for part, names in listed.items():
        unknown = [name for name in names if name not in index]
        if unknown:
            wrong.append(
                f"{part}.txt names {len(unknown):,} images that {image_set.name} lacks, for "
                f"example {unknown[0]}"
            )
        both = sorted(set(names) & set(listed["query"]))
        if both and part != "query":
            wrong.append(f"{part}.txt names {len(both):,} of the queries, for example {both[0]}")
        rows[part] = np.array(sorted(index[n] for n in names if n in index), dtype=np.int64)
    none = np.empty(0, dtype=np.int64)
    split = Split(rows["train"], rows["query"], rows["database"], none, none)
    for key, value in _facts(image_set, split).items():
        if said.get(key) != value:
            wrong.append(f"{key} is {value}, and {FACTS} says {said.get(key)}")
    return wrong


def _facts(image_set: ImageSet, split: Split) -> dict[str, Any]:
    """What is written of a split and checked again."""
    sizes = {part: len(split.arrays()[part]) for part in PARTS}
    return {
        "dataset": image_set.name,
        "data": image_set.checksum,
        "split": split.checksum,
        **sizes,
    }


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, list[str]]]:
    try:
        said = json.loads((folder / FACTS).read_text())
        listed = {part: _lines(folder / f"{part}.txt") for part in PARTS}
    except OSError as error:
        raise UserError(
            f"{error.filename} cannot be read: {error.strerror}. Without --check a split is "
            "written there."
        ) from None
    except ValueError as error:
        raise UserError(f"{folder / FACTS} is no JSON: {error}.") from None
    if not isinstance(said, dict):
        raise UserError(f"{folder / FACTS} holds no settings by name.")
    return said, listed


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    return [line for line in text.split("\n") if line]  # a name may hold what else ends a line
