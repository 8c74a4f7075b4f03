"""From a list of image files to an image set: what cannot be used is counted, listed, left out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deephash.core.errors import UserError
from deephash.core.io import write_json
from deephash.data.files.decoded_cache import decode_files
from deephash.data.image_set import ImageSet

SHOWN = 4  # names of many


@dataclass(frozen=True)
class DecodingOptions:
    """How image files become pixels, as it stands in `conf/dataset/`.

    Attributes:
        size: side in pixels that images are brought to.
        keep: whether to keep the decoded images, as one memory-mapped file.
        folder: where they lie.
        workers: that decode at once.
        tolerated: share of the rows that may be missing, broken, unlabelled or repeated.
    """

    size: int
    keep: bool
    folder: Path
    workers: int
    tolerated: float

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"dataset.size={self.size}: give a side of at least 1 pixel.")
        if not 0 <= self.tolerated <= 1:
            raise UserError(f"dataset.tolerated={self.tolerated}: give a share from 0 to 1.")


@dataclass
class Listing:
    """What is said of images before one is opened: a row an image.

    Attributes:
        name: of the data set.
        source: the file or folder that says it, for errors.
        ids: unique but for repeated rows, the same on every machine.
        paths: of the files.
        labels: int64 class indices (n,), -1 for none, or uint8 multi-hot (n, classes).
        classes: their names.
        is_test: bool (n,), of a given split.
        left_out: rows that cannot be used, a sentence each, by what is wrong.
        notes: what the report says beside that.
    """

    name: str
    source: Path
    ids: list[str]
    paths: list[str]
    labels: npt.NDArray[np.integer]
    classes: tuple[str, ...]
    is_test: npt.NDArray[np.bool_]
    left_out: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def image_set(self, decoding: DecodingOptions) -> ImageSet:
        """The images that can be used: one for each file that is there, whole and labelled.

        Writes a report of all others beside the decoded images. Of rows that name one file the
        first stands; a query for one of them it stays.

        Raises:
            UserError: too many are left out, no image is left, or all are of one class.
        """
        rows = len(self.ids)
        if not rows:
            raise UserError(
                f"{self.source} names no image of any of these classes: {_some(self.classes)}."
            )
        kept = np.ones(rows, dtype=bool)
        seen: dict[str, int] = {}
        labelled = np.atleast_1d(
            self.labels >= 0 if self.labels.ndim == 1 else self.labels.any(axis=1)
        )
        for row, (name, path) in enumerate(zip(self.ids, self.paths, strict=True)):
            first = seen.setdefault(name, row)
            if first != row:
                self._leave("repeated", name + self._contradiction(first, row), kept, row)
            elif not labelled[row]:
                self._leave("unlabelled", name, kept, row)
            elif not os.path.isfile(path):  # nor reached: Path.is_file raises there
                self._leave("missing", path, kept, row)
        self._check(rows, decoding)
        chosen = np.flatnonzero(kept)
        images, broken = decode_files(
            [self.paths[row] for row in chosen],
            size=decoding.size,
            keep=decoding.keep,
            folder=decoding.folder,
            workers=decoding.workers,
        )
        for position, reason in broken.items():
            row = int(chosen[position])
            self._leave("broken", f"{self.paths[row]}: {reason}", kept, row)
        self._check(rows, decoding)
        self._check_classes(self.labels[kept])
        if self._count():
            counts = ", ".join(f"{len(told):,} {kind}" for kind, told in self.left_out.items())
            tell(f"{self.name}: {kept.sum():,} of {rows:,} images; left out: {counts}")
        return ImageSet(
            name=self.name,
            images=images.only(kept[chosen]),
            labels=torch.from_numpy(self.labels[kept]),
            ids=np.array(self.ids)[kept],
            classes=self.classes,
            is_test=self.is_test[kept],
            report=self._report(rows, decoding)[0],
        )

    def _contradiction(self, first: int, row: int) -> str:
        """What a repeated row says otherwise than the first; of the two words of a split `test`."""
        told = ""
        if not np.array_equal(self.labels[row], self.labels[first]):
            told += ", with other labels"
        if self.is_test[row] != self.is_test[first]:
            told += ", as test and as train"
            self.is_test[first] = True
            self.notes.setdefault("queries_elsewhere", {})[self.ids[row]] = ["train", "database"]
        return told

    def _leave(self, kind: str, told: str, kept: npt.NDArray[np.bool_], row: int) -> None:
        self.left_out.setdefault(kind, []).append(told)
        kept[row] = False

    def _report(self, rows: int, decoding: DecodingOptions) -> tuple[dict[str, Any], str]:
        """What is left out, written down where that can be; and a sentence on where that is."""
        report = {
            "source": str(self.source),
            "rows": rows,
            "images": rows - self._count(),
            "left_out": self.left_out,
            **self.notes,
        }
        place = decoding.folder / f"{self.name}.report.json"
        try:
            write_json(place, report)
        except OSError as error:  # decoded images may lie where nothing can be written
            return report, f"{place} cannot be written: {error.strerror}."
        return report, f"All: {place}."

    def _count(self) -> int:
        return sum(map(len, self.left_out.values()))

    def _check(self, rows: int, decoding: DecodingOptions) -> None:
        if self._count() <= decoding.tolerated * rows and self._count() < rows:
            return
        _, place = self._report(rows, decoding)
        counts = ", ".join(f"{len(told)} {kind}" for kind, told in self.left_out.items())
        some = [f"{kind}: {told[0]}" for kind, told in self.left_out.items()]
        raise UserError(
            f"{self.source}: of {rows:,} rows {self._count():,} cannot be used ({counts}), more "
            f"than dataset.tolerated={decoding.tolerated} of them. For example {'; '.join(some)}. "
            f"{place} Mend them, or raise the limit."
        )

    def _check_classes(self, labels: npt.NDArray[np.integer]) -> None:
        """Whether there are several; those without an image stay, and are told."""
        used = np.unique(labels) if labels.ndim == 1 else np.flatnonzero(labels.any(axis=0))
        if len(used) == 1:
            raise UserError(
                f"{self.source}: all images are of one class, '{self.classes[used[0]]}'. Name the "
                "folder that holds the class folders, or give a list with the other labels."
            )
        empty = [self.classes[i] for i in np.setdiff1d(np.arange(len(self.classes)), used)]
        if empty:
            self.notes["classes_without_images"] = empty
            tell(f"{self.name}: {len(empty):,} classes are left without an image: {_some(empty)}")


def tell(message: str) -> None:
    """Print a sentence; what of a name is no text is escaped.

    Args:
        message: the sentence.
    """
    print(message.encode(errors="backslashreplace").decode())


def _some(names: Sequence[str]) -> str:
    """The first of them, for a sentence."""
    return ", ".join(names[:SHOWN]) + ", …" * (len(names) > SHOWN)
