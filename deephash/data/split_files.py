"""Splits stored as lists of ids with checksums: writing them and comparing them with the images."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from deephash.core.errors import UserError
from deephash.core.io import atomic_write, write_json
from deephash.data.files.name_index import NameIndex
from deephash.data.files.split_lists import read_list
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split

PARTS = ("query", "train", "database")  # one list each
SUMMARY = "split.json"


def write_split(folder: Path, image_set: ImageSet, split: Split, origin: dict[str, Any]) -> None:
    """Write a split as lists of ids, for `protocols.given`, with its sizes and checksums as JSON.

    Args:
        folder: where `query.txt`, `train.txt`, `database.txt` and `split.json` are written.
        image_set: the images.
        split: their split; its validation images are not written.
        origin: how the split was drawn, as JSON values; added to `split.json`.

    Raises:
        UserError: the folder already holds a split, or cannot be written to; or an id cannot stand
            in a line.

    Example:
        >>> import tempfile
        >>> from deephash.data.datasets.digits import digits
        >>> from deephash.data.protocols import stratified
        >>> image_set = digits()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     split = stratified(image_set, seed=0, query_fraction=0.1)
        ...     write_split(Path(folder), image_set, split, {"seed": 0})
        ...     find_differences(Path(folder), image_set)
        []
    """
    names = [*(f"{part}.txt" for part in PARTS), SUMMARY]
    existing = [name for name in names if (folder / name).exists()]
    if existing:
        raise UserError(
            f"{folder} already holds {', '.join(existing)}. Name another folder, or remove them."
        )
    _check_ids_fit_lines(image_set)
    try:
        for part in PARTS:
            lines = "".join(f"{image_id}\n" for image_id in image_set.ids[split.arrays()[part]])
            with atomic_write(folder / f"{part}.txt") as path:
                path.write_bytes(lines.encode("utf-8", "surrogateescape"))
        write_json(folder / SUMMARY, _summarize(image_set, split) | origin)
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror}.") from None


def find_differences(folder: Path, image_set: ImageSet) -> list[str]:
    """Compare a stored split with the images and with its own checksums.

    Returns:
        A sentence for each difference; none if the split fits.

    Raises:
        UserError: the split cannot be read.
    """
    summary = _read_summary(folder / SUMMARY)
    index = NameIndex(image_set.ids.tolist())
    listed = {part: read_list(folder / f"{part}.txt") for part in PARTS}
    found = {part: index.find_images(images) for part, images in listed.items()}
    differences, rows = [], {}
    for part, images in listed.items():
        unknown = [i for i, row in zip(images, found[part], strict=True) if row is None]
        known = np.array([row for row in found[part] if row is not None], dtype=np.int64)
        rows[part], counts = np.unique(known, return_counts=True)
        if (counts > 1).any():
            repeated = image_set.ids[rows[part][counts.argmax()]]
            differences.append(f"{part}.txt names {repeated} {counts.max()} times")
        if unknown:
            differences.append(
                f"{part}.txt names {len(unknown):,} images that are not in {image_set.name}, for "
                f"example {unknown[0].text}. {index.explain_missing(unknown[0].text)}"
            )
        queries = np.intersect1d(rows[part], rows["query"])
        if len(queries) and part != "query":
            differences.append(
                f"{part}.txt names {len(queries):,} of the queries, for example "
                f"{image_set.ids[queries[0]]}"
            )
    split = Split(rows["train"], rows["query"], rows["database"])
    for key, value in _summarize(image_set, split).items():
        if summary.get(key) != value:
            differences.append(f"{key} is {value}, but {SUMMARY} says {summary.get(key)}")
    return differences


def _check_ids_fit_lines(image_set: ImageSet) -> None:
    """Refuse ids that a list, an id per line, would not give back."""
    for image_id in image_set.ids.tolist():
        if not image_id.strip() or {"\n", "\r"} & {*image_id} or image_id[0] == "\ufeff":
            raise UserError(
                f"{image_set.name}: the name {image_id!r} cannot stand in a list, which has one "
                "name per line: it is blank, holds a line break or begins with a byte order mark. "
                "Rename the file."
            )


def _summarize(image_set: ImageSet, split: Split) -> dict[str, Any]:
    """Checksums and sizes: what is written with a split and compared again."""
    sizes = {part: len(split.arrays()[part]) for part in PARTS}
    return {
        "dataset": image_set.name,
        "data": image_set.checksum,
        "split": split.checksum,
        **sizes,
    }


def _read_summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text())
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}. To write a split there, leave out --check."
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}.") from None
    if not isinstance(summary, dict):
        raise UserError(f"{path} does not hold a JSON object.")
    return summary
