"""Evaluation protocols: which images are queries, which are trained on, which are searched."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from deephash.data.image_set import ImageSet
from deephash.errors import UserError
from deephash.seeds import derived_seed


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


def test_vs_train(image_set: ImageSet, seed: int) -> Split:
    """Queries: the official test images; training set and database: all the others."""
    del seed  # nothing is drawn
    if not image_set.is_test.any():
        raise UserError(
            f"protocol=test-vs-train: {image_set.name} has no official test images. "
            "Use protocol=30-per-class."
        )
    train = np.flatnonzero(~image_set.is_test)
    return _split(train=train, query=np.flatnonzero(image_set.is_test), database=train)


def per_class(
    image_set: ImageSet, seed: int, *, queries: int, train: int | None, train_in_database: bool
) -> Split:
    """Queries and training images drawn from each class, official split or not.

    Args:
        image_set: single-label.
        seed: fixes the draw.
        queries: how many of each class.
        train: how many of each class; null: all that are no queries.
        train_in_database: whether the training images are searched too.

    Raises:
        UserError: a class has fewer images than asked for.
    """
    rng = np.random.default_rng(derived_seed(seed, "protocol"))
    labels = image_set.labels.numpy()
    chosen_queries, chosen_train = [], []
    for index, name in enumerate(image_set.classes):
        members = rng.permutation(np.flatnonzero(labels == index))
        wanted = queries + (train or 1)
        if len(members) < wanted:
            asked = f"protocol.queries={queries} and protocol.train={train}"
            raise UserError(
                f"{asked} ask {wanted} images of class '{name}' of {image_set.name}, "
                f"which has {len(members)}. Ask for fewer."
            )
        chosen_queries.append(members[:queries])
        chosen_train.append(members[queries : None if train is None else wanted])
    query = np.sort(np.concatenate(chosen_queries))
    training = np.sort(np.concatenate(chosen_train))
    searched = np.setdiff1d(np.arange(len(image_set)), query)
    if not train_in_database:
        searched = np.setdiff1d(searched, training)
    if not len(searched):
        raise UserError(
            "protocol: no image is left for the database. Set protocol.train to a number of images "
            "a class, or protocol.train_in_database=true."
        )
    return _split(train=training, query=query, database=searched)


def _split(train: np.ndarray, query: np.ndarray, database: np.ndarray) -> Split:
    none = np.empty(0, dtype=np.int64)
    return Split(train, query, database, validation=none, validation_database=none)


def with_validation(
    split: Split, labels: np.ndarray, *, share: float, database: int, seed: int
) -> Split:
    """Hold `share` of the training images of each class out for validation.

    They stay in the database, as the protocol says, but are not trained on.

    Args:
        split: without validation.
        labels: class indices (n,) of the image set.
        share: of each class, at least one image.
        database: how many of the remaining training images validation ranks, at most.
        seed: fixes the draw.
    """
    rng = np.random.default_rng(derived_seed(seed, "validation"))
    held_out = []
    for label in np.unique(labels[split.train]):
        members = rng.permutation(split.train[labels[split.train] == label])
        held_out.append(members[: max(1, round(share * len(members)))])
    validation = np.sort(np.concatenate(held_out))
    train = np.setdiff1d(split.train, validation)
    if not len(train):
        raise UserError(f"validation.share={share} leaves no image to train on. Lower it.")
    ranked = np.sort(rng.permutation(train)[:database])
    return replace(split, train=train, validation=validation, validation_database=ranked)


def content_overlap(image_set: ImageSet, split: Split) -> int:
    """How many queries have an exact copy of their pixels in the database."""
    pixels = image_set.images.numpy()

    def digests(indices: np.ndarray) -> list[bytes]:
        return [hashlib.sha1(pixels[i].tobytes(), usedforsecurity=False).digest() for i in indices]

    searched = set(digests(split.database))
    return sum(digest in searched for digest in digests(split.query))
