"""Evaluation protocols: which images are queries, training set and database."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError
from deephash.core.seeds import derived_seed
from deephash.data.files.name_index import NameIndex
from deephash.data.files.names import escape_undecodable, join_first
from deephash.data.files.split_lists import read_list
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split, strata, stratified_sample

NOTE_WITHOUT_LABEL = "images_without_a_concept_of_the_subset"  # in the report of NUS-WIDE

logger = logging.getLogger(__name__)


def test_vs_train(image_set: ImageSet, seed: int) -> Split:
    """The official test images are queries; all others are training set and database.

    Args:
        image_set: with an official split.
        seed: unused, as nothing is drawn.

    Raises:
        UserError: the image set has no official test images.
    """
    del seed
    if not image_set.is_test.any():
        raise UserError(
            f"protocol=test-vs-train: {image_set.name} has no official test images. Use "
            "protocol=10-percent (protocols.stratified)."
        )
    train = np.flatnonzero(~image_set.is_test)
    split = Split(train=train, query=np.flatnonzero(image_set.is_test), database=train)
    return _warn_of_lone_classes(image_set, split)


def per_class(
    image_set: ImageSet,
    seed: int,
    *,
    queries_per_class: int,
    train_per_class: int | None,
    train_in_database: bool,
) -> Split:
    """Draw queries and training images from each class, whether there is an official split or not.

    An image with several labels is drawn for one of its classes; the rarest class draws first.

    Args:
        image_set: with class indices or multi-hot labels.
        seed: of the run.
        queries_per_class: number of queries of each class.
        train_per_class: number of training images of each class; None for all but the queries.
        train_in_database: whether the training images are part of the database.

    Raises:
        UserError: a class has too few images, or none is left for the database.

    Example:
        >>> from deephash.data.datasets.digits import digits
        >>> split = per_class(
        ...     digits(), 0, queries_per_class=10, train_per_class=50, train_in_database=True
        ... )
        >>> len(split.query), len(split.train), len(split.database)
        (100, 500, 1697)
    """
    for name, count in ("queries", queries_per_class), ("train", train_per_class):
        if count is not None and count < 0:
            raise UserError(f"protocol.{name}_per_class={count}: must be at least 0.")
    _warn_of_official_split(image_set)
    rng = np.random.default_rng(derived_seed(seed, "protocol"))
    is_member = _class_membership(image_set.labels.numpy(), len(image_set.classes))
    class_order = np.arange(is_member.shape[1])
    if image_set.labels.ndim > 1:
        class_order = np.argsort(is_member.sum(axis=0), kind="stable")
    is_free = np.ones(len(image_set), dtype=bool)
    queries, train = [], []
    for class_index in class_order:
        candidates = rng.permutation(np.flatnonzero(is_member[:, class_index] & is_free))
        required = queries_per_class + (train_per_class or 1)
        if len(candidates) < required:
            raise UserError(
                f"protocol.queries_per_class={queries_per_class} and protocol.train_per_class="
                f"{train_per_class} need {required} images of class "
                f"'{image_set.classes[class_index]}', but {image_set.name} has {len(candidates)}. "
                "Choose smaller numbers."
            )
        drawn_count = queries_per_class + (train_per_class or 0)
        queries.append(candidates[:queries_per_class])
        train.append(candidates[queries_per_class:drawn_count])
        is_free[candidates[:drawn_count]] = False
    query = np.sort(np.concatenate(queries))
    others = np.setdiff1d(np.arange(len(image_set)), query)
    training = others if train_per_class is None else np.sort(np.concatenate(train))
    database = others if train_in_database else np.setdiff1d(others, training)
    if not len(database):
        raise UserError(
            f"protocol.train_per_class={train_per_class} and protocol.train_in_database="
            f"{train_in_database} leave no image for the database. Train on fewer images per "
            "class, or set protocol.train_in_database=true."
        )
    return _warn_of_lone_classes(image_set, Split(training, query, database))


def at_random(image_set: ImageSet, seed: int, *, queries: int, train: int) -> Split:
    """Draw queries from all images, and training images from the others, which are the database.

    Args:
        image_set: the images.
        seed: of the run.
        queries: number of queries.
        train: number of training images.

    Raises:
        UserError: there are too few images.
    """
    if queries + train > len(image_set):
        raise UserError(
            f"protocol.queries={queries} and protocol.train={train} need more than the "
            f"{len(image_set)} images of {image_set.name}. Choose smaller numbers."
        )
    rng = np.random.default_rng(derived_seed(seed, "protocol"))
    order = rng.permutation(len(image_set))
    split = Split(
        train=np.sort(order[queries : queries + train]),
        query=np.sort(order[:queries]),
        database=np.sort(order[queries:]),
    )
    return _warn_of_lone_classes(image_set, split)


def stratified(image_set: ImageSet, seed: int, *, query_fraction: float) -> Split:
    """Draw the same fraction of each class as queries; the rest is training set and database.

    Args:
        image_set: with class indices or multi-hot labels.
        seed: of the run.
        query_fraction: between 0 and 1.

    Raises:
        UserError: none or all of the images would be queries.

    Example:
        >>> from deephash.data.datasets.digits import digits
        >>> split = stratified(digits(), 0, query_fraction=0.1)
        >>> len(split.query), len(split.train), len(split.database)
        (179, 1618, 1618)
    """
    _warn_of_official_split(image_set)
    rng = np.random.default_rng(derived_seed(seed, "protocol"))
    indices = np.arange(len(image_set))
    query = stratified_sample(indices, strata(image_set.labels.numpy()), query_fraction, rng)
    if not 0 < query_fraction < 1 or not 0 < len(query) < len(image_set):
        raise UserError(
            f"protocol.query_fraction={query_fraction} makes {len(query)} of the "
            f"{len(image_set)} images of {image_set.name} queries. Give a fraction between 0 and "
            "1, and several images per class."
        )
    others = np.setdiff1d(indices, query)
    return _warn_of_lone_classes(image_set, Split(others, query, others))


def given(
    image_set: ImageSet,
    seed: int,
    *,
    queries: str,
    train: str,
    database: str | None,
    max_missing_fraction: float,
) -> Split:
    """Read the split from lists: one image per line, its id or file name, with or without labels.

    A name may have more leading folders than the id, or fewer, but no different ones. It may differ
    in spelling, such as letter case, if only one image can be meant; a log line says so.

    Args:
        image_set: the images.
        seed: unused, as nothing is drawn.
        queries: path of a list.
        train: path of a list.
        database: path of a list; None for all images but the queries.
        max_missing_fraction: how many images of a list may be missing from the image set, from 0
            to 1.

    Raises:
        UserError: a list cannot be read, names too many unknown images, a name is ambiguous, or a
            query is in another part.
    """
    del seed
    index = NameIndex(image_set.ids.tolist())

    def find_rows(path: str) -> npt.NDArray[np.int64]:
        return _find_listed_rows(Path(path), index, image_set, max_missing_fraction)

    query, training = find_rows(queries), find_rows(train)
    searched = np.setdiff1d(np.arange(len(image_set)), query)
    if database is not None:
        searched = find_rows(database)
    for name, path, rows in (("train", train, training), ("database", database, searched)):
        shared = np.intersect1d(query, rows)
        if len(shared):
            raise UserError(
                f"protocol.{name}={path} names {len(shared)} of the queries, for example "
                f"{image_set.ids[shared[0]]}. A query must be neither trained on nor searched."
            )
    return _warn_of_lone_classes(image_set, Split(training, query, searched))


def _find_listed_rows(
    path: Path, index: NameIndex, image_set: ImageSet, max_missing_fraction: float
) -> npt.NDArray[np.int64]:
    images = read_list(path)
    if not images:
        raise UserError(f"{path} names no image.")
    rows = index.find_images(images)
    unknown = [image for image, row in zip(images, rows, strict=True) if row is None]
    missing = [image.name for image in unknown]
    if len(missing) > max_missing_fraction * len(images) or len(missing) == len(images):
        hint = _explain_left_out(image_set, missing) or index.explain_missing(unknown[0].text)
        raise UserError(
            f"{path} names {len(images):,} images, {len(missing):,} of which are not in "
            f"{image_set.name}; for example {missing[0]}. {hint} Correct the list, or raise "
            f"protocol.max_missing_fraction={max_missing_fraction}."
        )
    shown_path = escape_undecodable(str(path))
    if missing:
        left_out = _explain_left_out(image_set, missing).rstrip(".")
        logger.warning(
            "%s: %s of %s images are not in the data set%s",
            shown_path,
            f"{len(missing):,}",
            f"{len(images):,}",
            escape_undecodable(f"; {left_out}" if left_out else ""),
        )
    listed = np.unique([row for row in rows if row is not None])
    repeated_count = len(images) - len(missing) - len(listed)
    if repeated_count:
        logger.warning(
            "%s: %s of %s lines repeat an image",
            shown_path,
            f"{repeated_count:,}",
            f"{len(images):,}",
        )
    return listed


def _explain_left_out(image_set: ImageSet, missing: Sequence[str]) -> str:
    """A sentence on how many missing images the data set left out itself, and why."""
    report = image_set.report or {}
    left_out: dict[str, list[str]] = dict(report.get("left_out", {}))
    left_out["without a label of the subset"] = report.get(NOTE_WITHOUT_LABEL, [])
    reasons = {_file_name(name): reason for reason, names in left_out.items() for name in names}
    counts = Counter(reasons[_file_name(n)] for n in missing if _file_name(n) in reasons)
    shown = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
    return f"The data set left them out: {shown}." if shown else ""


def _file_name(description: str) -> str:
    """File name in lower case, without the reason that may follow a path."""
    return description.partition(": ")[0].rpartition("/")[2].casefold()


def _warn_of_lone_classes(image_set: ImageSet, split: Split) -> Split:
    """Warn of classes that have queries but no image to find, or images but no query."""
    is_member = _class_membership(image_set.labels.numpy(), len(image_set.classes))
    in_query, in_database = (is_member[rows].any(axis=0) for rows in (split.query, split.database))
    for is_lone, problem in (
        (in_query & ~in_database, "with queries, but no image in the database"),
        (in_database & ~in_query, "with images in the database, but no query"),
    ):
        names = [image_set.classes[i] for i in np.flatnonzero(is_lone)]
        if names:
            name = escape_undecodable(image_set.name)
            logger.warning("%s: classes %s (%s): %s", name, problem, len(names), join_first(names))
    return split


def _warn_of_official_split(image_set: ImageSet) -> None:
    if image_set.is_test.any():
        logger.warning(
            "%s: the official split (%s test images) is not used; protocol=test-vs-train uses it",
            escape_undecodable(image_set.name),
            f"{image_set.is_test.sum():,}",
        )


def _class_membership(labels: np.ndarray, class_count: int) -> npt.NDArray[np.bool_]:
    """Which image is of which class: bool (n, classes)."""
    return labels > 0 if labels.ndim > 1 else labels[:, None] == np.arange(class_count)
