"""Splits of an image set into training images, queries, database and validation images."""

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError
from deephash.core.seeds import derived_seed
from deephash.data.image_set import ImageSet


def _no_images() -> npt.NDArray[np.int64]:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Split:
    """Index arrays into an image set, each in increasing order.

    Attributes:
        train: images to train on.
        query: queries; disjoint from all other parts.
        database: images that are searched; may include `train` and `validation`.
        validation: images held out of the training images, for curves and model selection.
        validation_database: part of `train` that the validation images are ranked against.

    Raises:
        UserError: an array does not hold indices, or is not in increasing order.
    """

    train: np.ndarray
    query: np.ndarray
    database: np.ndarray
    validation: np.ndarray = field(default_factory=_no_images)
    validation_database: np.ndarray = field(default_factory=_no_images)

    def __post_init__(self) -> None:
        for name, values in self.arrays().items():
            indices = np.asarray(values)
            if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
                raise UserError(
                    f"Split: {name} has shape {indices.shape} and type {indices.dtype}. Give the "
                    "indices of its images, (n,); of a mask, np.flatnonzero(mask)."
                )
            if indices.size and (indices[0] < 0 or (indices[1:] <= indices[:-1]).any()):
                raise UserError(
                    f"Split: {name} is not in increasing order, from 0 and without repetition. "
                    f"Give np.unique({name})."
                )

    def arrays(self) -> dict[str, np.ndarray]:
        """The index arrays by name."""
        return dict(vars(self))

    @property
    def checksum(self) -> str:
        """SHA-256 of the index arrays."""
        digest = hashlib.sha256()
        for name, indices in self.arrays().items():
            digest.update(name.encode() + indices.astype("<i8").tobytes())
        return digest.hexdigest()


def strata(labels: np.ndarray) -> npt.NDArray[np.int64]:
    """The class that stratified sampling counts each image in: its class, or the rarest of several.

    Args:
        labels: class indices (n,) or multi-hot (n, classes).

    Returns:
        Class indices (n,).

    Example:
        >>> strata(np.array([[1, 0], [1, 1], [1, 0]])).tolist()
        [0, 1, 0]
    """
    if labels.ndim == 1:
        return labels
    rarest_first = np.argsort(labels.sum(axis=0), kind="stable")
    return rarest_first[(labels[:, rarest_first] > 0).argmax(axis=1)]


def stratified_sample(
    indices: np.ndarray, stratum: np.ndarray, fraction: float, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw the same fraction of each stratum: at least one image, but never all.

    Args:
        indices: int64 (m,), the images to draw from.
        stratum: int64 (n,), the stratum of every image of the set.
        fraction: from 0 to 1.
        rng: random generator.

    Returns:
        The drawn indices, in increasing order.

    Example:
        >>> classes = np.array([0] * 10 + [1] * 30)
        >>> drawn = stratified_sample(np.arange(40), classes, 0.1, np.random.default_rng(0))
        >>> np.bincount(classes[drawn]).tolist()
        [1, 3]
    """
    drawn = [np.empty(0, dtype=np.int64)]
    for value in np.unique(stratum[indices]):
        members = rng.permutation(indices[stratum[indices] == value])
        drawn.append(members[: min(max(1, round(fraction * len(members))), len(members) - 1)])
    return np.sort(np.concatenate(drawn))


def hold_out_validation(
    split: Split, labels: np.ndarray, *, fraction: float, database_size: int, seed: int
) -> Split:
    """Hold a fraction of each class of the training images out for validation.

    These images remain in the database, as the protocol defines it, but are not trained on.

    Args:
        split: a split without validation images.
        labels: class indices (n,) or multi-hot (n, classes) of the whole image set.
        fraction: of each class; at least one image is held out.
        database_size: how many of the remaining training images are ranked for a validation query,
            at most.
        seed: of the run.

    Raises:
        UserError: no image is left to train on or to validate on.

    Example:
        >>> split = Split(np.arange(8), np.arange(8, 10), np.arange(8))
        >>> split = hold_out_validation(
        ...     split, np.arange(10) % 2, fraction=0.25, database_size=5, seed=0
        ... )
        >>> len(split.train), len(split.validation), len(split.validation_database)
        (6, 2, 5)
    """
    rng = np.random.default_rng(derived_seed(seed, "validation"))
    validation = stratified_sample(split.train, strata(labels), fraction, rng)
    train = np.setdiff1d(split.train, validation)
    if not len(train) or not len(validation):
        raise UserError(_explain_no_validation(split, strata(labels)))
    validation_database = np.sort(rng.permutation(train)[:database_size])
    return replace(
        split, train=train, validation=validation, validation_database=validation_database
    )


def _explain_no_validation(split: Split, stratum: np.ndarray) -> str:
    """Why no image can be held out: at least one image of each class must remain to train on."""
    if not len(split.train):
        return "The protocol leaves no training images. Choose one that draws some."
    problem = (
        "No image can be held out for validation, whatever protocol.validation.fraction is: none "
        f"of the classes has two of the {len(split.train):,} training images."
    )
    everything = np.union1d(split.query, split.database)
    count = len(everything)
    queries = max(1, count // 10)
    if count - queries <= len(np.unique(stratum[everything])):
        return f"{problem} Add images."
    return (
        f"{problem} Do not draw a query from each class: protocol=hashnet "
        f"protocol.queries={queries} protocol.train={count - queries}."
    )


def drop_query_duplicates(image_set: ImageSet, split: Split) -> Split:
    """Remove the images whose pixels equal those of a query from database and training set."""
    is_duplicate = find_query_duplicates(image_set, split)
    return replace(
        split,
        train=split.train[~is_duplicate[split.train]],
        database=split.database[~is_duplicate[split.database]],
    )


def find_query_duplicates(image_set: ImageSet, split: Split) -> npt.NDArray[np.bool_]:
    """Which images are not queries but have the same pixels as one: bool (n,)."""
    is_duplicate = np.isin(image_set.content_hashes, image_set.content_hashes[split.query])
    is_duplicate[split.query] = False
    return is_duplicate
