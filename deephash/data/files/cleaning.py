"""From a listing of image files to an image set, without the images that cannot be used."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deephash.core.errors import UserError
from deephash.core.io import write_json
from deephash.data.files.decoded_cache import decode_files
from deephash.data.files.labels import find_similar_names
from deephash.data.files.names import escape_undecodable, join_first
from deephash.data.files.pixel_range import PixelRange
from deephash.data.image_set import ImageSet

OTHER_LABELS = ", with other labels"  # than the first row of the same image

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodingOptions:
    """How image files are decoded, as set in `conf/dataset/`.

    Attributes:
        size: side of the decoded images in pixels.
        cache_decoded: whether to keep the decoded images, as one memory-mapped file.
        decoded_dir: folder for them and for the report of unusable images.
        workers: number of threads or processes that decode; None for the number of CPU cores.
        max_invalid_fraction: how many of the images may be missing, broken, unlabelled or listed
            twice, from 0 to 1.
        pixel_range: see `decode_image`.
        max_pixels: see `decode_image`.
    """

    size: int
    cache_decoded: bool
    decoded_dir: str
    workers: int | None
    max_invalid_fraction: float
    pixel_range: PixelRange = "full"
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"dataset.size={self.size}: must be at least 1 pixel.")
        if self.max_pixels is not None and self.max_pixels < 1:
            raise UserError(f"dataset.max_pixels={self.max_pixels}: must be at least 1, or null.")
        if not 0 <= self.max_invalid_fraction <= 1:
            raise UserError(
                f"dataset.max_invalid_fraction={self.max_invalid_fraction}: must lie between 0 "
                "and 1."
            )


@dataclass
class Listing:
    """What is known of n images before their files are opened.

    Attributes:
        name: of the data set.
        source: file or folder that lists the images, for error messages.
        ids: str (n,), the same on every machine; unique except for rows that repeat an image.
        paths: of the files.
        labels: int64 class indices (n,), -1 for none, or uint8 multi-hot (n, classes).
        classes: class names.
        is_test: bool (n,), whether an image belongs to the official test set.
        left_out: descriptions of the rows that cannot be used, by reason.
        notes: further entries of the report.
        missing_hint: a sentence on why files are missing, for error messages.
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
    missing_hint: str = ""

    def load(self, options: DecodingOptions) -> ImageSet:
        """Decode the files and return the images that are present, intact and labelled.

        Of rows that repeat an image the first with labels is used; if any of them is a test image,
        it is one. A report of the other images is written to `options.decoded_dir`.

        Raises:
            UserError: more than `options.max_invalid_fraction` of the images cannot be used, none
                can, or all are of one class.
        """
        row_count = len(self.ids)
        if not row_count:
            raise UserError(
                f"{self.source} lists no image of any of these classes: {join_first(self.classes)}."
            )
        is_usable = np.ones(row_count, dtype=bool)
        is_labelled = np.atleast_1d(
            self.labels >= 0 if self.labels.ndim == 1 else self.labels.any(axis=1)
        )
        for row, first_row in enumerate(self._find_first_rows(is_labelled)):
            image_id, path = self.ids[row], self.paths[row]
            if first_row != row:
                difference = self._merge_repeated(first_row, row, is_labelled[row])
                self._leave_out("repeated", image_id + difference, is_usable, row)
            elif not is_labelled[row]:
                self._leave_out("unlabelled", image_id, is_usable, row)
            elif not os.path.isfile(path):  # unlike Path.is_file, false for an invalid path too
                self._leave_out("missing", path, is_usable, row)
        self._check_invalid_fraction(row_count, options)
        rows = np.flatnonzero(is_usable)
        images, broken = decode_files(
            [self.paths[row] for row in rows],
            size=options.size,
            cache_decoded=options.cache_decoded,
            decoded_dir=Path(options.decoded_dir),
            workers=options.workers or os.cpu_count() or 1,
            pixel_range=options.pixel_range,
            max_pixels=options.max_pixels,
        )
        for position, reason in broken.items():
            row = int(rows[position])
            self._leave_out("broken", f"{self.paths[row]}: {reason}", is_usable, row)
        self._check_invalid_fraction(row_count, options)
        self._check_classes(self.labels[is_usable])
        if self._count_left_out():
            logger.warning(
                "%s: using %s of %s images; left out: %s",
                escape_undecodable(self.name),
                f"{is_usable.sum():,}",
                f"{row_count:,}",
                self._describe_left_out(),
            )
        return ImageSet(
            name=self.name,
            images=images.select(is_usable[rows]),
            labels=torch.from_numpy(self.labels[is_usable]),
            ids=np.array(self.ids)[is_usable],
            classes=self.classes,
            is_test=self.is_test[is_usable],
            report=self._write_report(row_count, options)[0],
        )

    def _find_first_rows(self, is_labelled: npt.NDArray[np.bool_]) -> list[int]:
        """The row that stands for the image of each row: the first with labels, or the first."""
        first_rows: dict[str, int] = {}  # of files and of ids
        found = list(range(len(self.ids)))
        for row in np.argsort(~is_labelled, kind="stable").tolist():
            keys = (os.path.abspath(self.paths[row]), f"id {self.ids[row]}")
            found[row] = next((first_rows[key] for key in keys if key in first_rows), row)
            for key in keys:
                first_rows.setdefault(key, found[row])
        return found

    def _merge_repeated(self, first_row: int, row: int, is_labelled: bool) -> str:
        """Describe how a repeated row differs from the first.

        If one of them is a test image, the first row becomes one.
        """
        difference = ""
        if is_labelled and not np.array_equal(self.labels[row], self.labels[first_row]):
            difference += OTHER_LABELS
        if self.is_test[row] != self.is_test[first_row]:
            difference += ", as test and as train"
            self.is_test[first_row] = True
            image_id = self.ids[first_row]
            self.notes.setdefault("queries_in_other_parts", {})[image_id] = ["train", "database"]
        return difference

    def _leave_out(
        self, reason: str, description: str, is_usable: npt.NDArray[np.bool_], row: int
    ) -> None:
        self.left_out.setdefault(reason, []).append(description)
        is_usable[row] = False

    def _write_report(self, row_count: int, options: DecodingOptions) -> tuple[dict[str, Any], str]:
        """The report, written if possible, and a sentence that says where it is."""
        report = {
            "source": str(self.source),
            "rows": row_count,
            "images": row_count - self._count_left_out(),
            "left_out": self.left_out,
            **self.notes,
        }
        path = Path(options.decoded_dir, f"{self.name}.report.json")
        try:
            write_json(path, report)
        except OSError as error:  # cached images may lie in a folder that is read-only
            return report, f"The full list, {path}, cannot be written: {error.strerror}."
        return report, f"All are listed in {path}."

    def _count_left_out(self) -> int:
        return sum(map(len, self.left_out.values()))

    def _describe_left_out(self) -> str:
        """How many rows are left out by reason, and what is wrong with a list of a row a label."""
        counts = {why: f"{len(names):,} {why}" for why, names in self.left_out.items()}
        other_labels = sum(OTHER_LABELS in name for name in self.left_out.get("repeated", ()))
        if other_labels:
            counts["repeated"] += (
                f", {other_labels:,} of them with other labels (all labels of an image belong in "
                "one row, such as sea;sunset)"
            )
        return ", ".join(counts.values())

    def _check_invalid_fraction(self, row_count: int, options: DecodingOptions) -> None:
        invalid_count = self._count_left_out()
        limit = options.max_invalid_fraction
        if invalid_count <= limit * row_count and invalid_count < row_count:
            return
        _, report_place = self._write_report(row_count, options)
        counts = self._describe_left_out()
        examples = "; ".join(f"{why}: {names[0]}" for why, names in self.left_out.items())
        hint = f" {self.missing_hint}" if self.missing_hint and "missing" in self.left_out else ""
        verdict = f"more than dataset.max_invalid_fraction={limit} allows"
        remedy = "Correct them, or raise the limit."
        if invalid_count == row_count:
            verdict, remedy = "so none is left", "Correct them."
        raise UserError(
            f"{self.source}: {invalid_count:,} of {row_count:,} images cannot be used ({counts}), "
            f"{verdict}. For example {examples}.{hint} {report_place} {remedy}"
        )

    def _check_classes(self, labels: npt.NDArray[np.integer]) -> None:
        """Refuse images of a single class; warn about classes without images."""
        used = np.unique(labels) if labels.ndim == 1 else np.flatnonzero(labels.any(axis=0))
        if len(used) == 1:
            raise UserError(
                f"{self.source}: all images are of one class, '{self.classes[used[0]]}'. Name the "
                "folder that holds the class folders, or give a list with several labels."
            )
        similar = [" and ".join(map(repr, names)) for names in find_similar_names(self.classes)]
        if similar:
            count = f" ({len(similar):,} such groups)" if len(similar) > 1 else ""
            told = f"{self.name}: different classes are named {join_first(similar)}{count}"
            logger.warning("%s", escape_undecodable(told))
        empty = [self.classes[i] for i in np.setdiff1d(np.arange(len(self.classes)), used)]
        if empty:
            self.notes["classes_without_images"] = empty
            logger.warning(
                "%s: classes left without images (%s): %s",
                escape_undecodable(self.name),
                f"{len(empty):,}",
                join_first(empty),
            )
