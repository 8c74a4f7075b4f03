"""Who is what: training set, queries, database, and what is held out for validation."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError
from deephash.core.seeds import derived_seed
from deephash.data.image_set import ImageSet


@dataclass(frozen=True)
class Split:
    """Index arrays into an image set, each in increasing order.

    `query` is disjoint from all others. `validation` is held out of the training images for curves
    and model selection: its images are ranked against `validation_database`, some of `train`.
    """

    train: np.ndarray
    query: np.ndarray
    database: np.ndarray
    validation: np.ndarray
    validation_database: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """The index arrays by name."""
        return dict(vars(self))

    @property
    def checksum(self) -> str:
        """SHA-256 over the index arrays."""
        digest = hashlib.sha256()
        for name, indices in self.arrays().items():
            digest.update(name.encode() + indices.astype("<i8").tobytes())
        return digest.hexdigest()


def strata(labels: np.ndarray) -> npt.NDArray[np.int64]:
    """What an image is drawn by: its class or, of several, the rarest; (n,).

    Args:
        labels: class indices (n,) or multi-hot (n, classes).
    """
    if labels.ndim == 1:
        return labels
    rarest_first = np.argsort(labels.sum(axis=0), kind="stable")
    return rarest_first[(labels[:, rarest_first] > 0).argmax(axis=1)]


def stratified_sample(
    indices: np.ndarray, stratum: np.ndarray, share: float, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Some of `indices`: of each stratum that share, at least one image, and never all."""
    chosen = [np.empty(0, dtype=np.int64)]
    for one in np.unique(stratum[indices]):
        members = rng.permutation(indices[stratum[indices] == one])
        chosen.append(members[: min(max(1, round(share * len(members))), len(members) - 1)])
    return np.sort(np.concatenate(chosen))


def hold_out_validation(
    split: Split, labels: np.ndarray, *, share: float, database: int, seed: int
) -> Split:
    """Hold `share` of the training images of each class out for validation.

    They stay in the database, as the protocol says, but are not trained on.

    Args:
        split: without validation.
        labels: class indices (n,) or multi-hot (n, classes) of the image set.
        share: of each class, at least one image of several.
        database: how many of the remaining training images validation ranks, at most.
        seed: fixes the draw.

    Raises:
        UserError: no image is left for either.
    """
    rng = np.random.default_rng(derived_seed(seed, "validation"))
    validation = stratified_sample(split.train, strata(labels), share, rng)
    train = np.setdiff1d(split.train, validation)
    if not len(train) or not len(validation):
        raise UserError(
            f"validation.share={share} of {len(split.train)} training images leaves "
            f"{len(train)} to train on and {len(validation)} to validate on. Change it."
        )
    ranked = np.sort(rng.permutation(train)[:database])
    return replace(split, train=train, validation=validation, validation_database=ranked)


def drop_query_duplicates(image_set: ImageSet, split: Split) -> Split:
    """The split without what has the very pixels of a query, in database and training set."""
    copied = find_query_duplicates(image_set, split)
    return replace(
        split,
        train=split.train[~copied[split.train]],
        database=split.database[~copied[split.database]],
    )


def find_query_duplicates(image_set: ImageSet, split: Split) -> npt.NDArray[np.bool_]:
    """Which images are no queries and have the very pixels of one: (n,)."""
    copied = np.isin(image_set.contents, image_set.contents[split.query])
    copied[split.query] = False
    return copied
