"""Evaluation protocols: which images are queries, which are trained on, which are searched."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError
from deephash.core.seeds import derived_seed
from deephash.data.files.cleaning import tell
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split, strata, stratified_sample


def test_vs_train(image_set: ImageSet, seed: int) -> Split:
    """Queries: the official test images; training set and database: all the others."""
    del seed  # nothing is drawn
    if not image_set.is_test.any():
        raise UserError(
            f"protocol=test-vs-train: {image_set.name} has no official test images. "
            "Use protocol=10-percent."
        )
    train = np.flatnonzero(~image_set.is_test)
    return _split(train=train, query=np.flatnonzero(image_set.is_test), database=train)


def per_class(
    image_set: ImageSet, seed: int, *, queries: int, train: int | None, train_in_database: bool
) -> Split:
    """Queries and training images drawn from each class, official split or not.

    An image of several classes is drawn for one of them; the rarest class draws first.

    Args:
        image_set: with class indices or multi-hot labels.
        seed: fixes the draw.
        queries: how many of each class.
        train: how many of each class; null: all that are no queries.
        train_in_database: whether the training images are searched too.

    Raises:
        UserError: a class has fewer images than asked for.
    """
    _tell_of_given_split(image_set)
    rng = np.random.default_rng(derived_seed(seed, "protocol"))
    members = _members(image_set.labels.numpy(), len(image_set.classes))
    in_turn = np.arange(members.shape[1])
    if image_set.labels.ndim > 1:
        in_turn = np.argsort(members.sum(axis=0), kind="stable")
    free = np.ones(len(image_set), dtype=bool)
    chosen_queries, chosen_train = [], []
    for index in in_turn:
        drawn = rng.permutation(np.flatnonzero(members[:, index] & free))
        wanted = queries + (train or 1)
        if len(drawn) < wanted:
            asked = f"protocol.queries={queries} and protocol.train={train}"
            raise UserError(
                f"{asked} ask {wanted} images of class '{image_set.classes[index]}' of "
                f"{image_set.name}, which has {len(drawn)}. Ask for fewer."
            )
        chosen_queries.append(drawn[:queries])
        chosen_train.append(drawn[queries : queries + (train or 0)])
        free[drawn[: queries + (train or 0)]] = False
    query = np.sort(np.concatenate(chosen_queries))
    others = np.setdiff1d(np.arange(len(image_set)), query)
    training = np.sort(np.concatenate(chosen_train)) if train else others
    searched = others if train_in_database else np.setdiff1d(others, training)
    if not len(searched):
        raise UserError(
            "protocol: no image is left for the database. Set protocol.train to a number of images "
            "a class, or protocol.train_in_database=true."
        )
    return _split(train=training, query=query, database=searched)


def at_random(image_set: ImageSet, seed: int, *, queries: int, train: int) -> Split:
    """Queries drawn from all images, training images from the others, which are the database.

    Raises:
        UserError: there are not as many images.
    """
    if queries + train > len(image_set):
        raise UserError(
            f"protocol.queries={queries} and protocol.train={train} ask more than the "
            f"{len(image_set)} images of {image_set.name}. Ask for fewer."
        )
    rng = np.random.default_rng(derived_seed(seed, "protocol"))
    drawn = rng.permutation(len(image_set))
    training = np.sort(drawn[queries : queries + train])
    return _split(train=training, query=np.sort(drawn[:queries]), database=np.sort(drawn[queries:]))


def stratified(image_set: ImageSet, seed: int, *, queries: float) -> Split:
    """The same share of each class for queries; the rest is both training set and database.

    Raises:
        UserError: that is none or all of the images.
    """
    _tell_of_given_split(image_set)
    rng = np.random.default_rng(derived_seed(seed, "protocol"))
    every = np.arange(len(image_set))
    query = stratified_sample(every, strata(image_set.labels.numpy()), queries, rng)
    if not 0 < queries < 1 or not 0 < len(query) < len(image_set):
        raise UserError(
            f"protocol.queries={queries} makes {len(query)} of the {len(image_set)} images of "
            f"{image_set.name} queries. Give a share between 0 and 1, and several images a class."
        )
    others = np.setdiff1d(every, query)
    return _split(train=others, query=query, database=others)


def given(
    image_set: ImageSet,
    seed: int,
    *,
    queries: str,
    train: str,
    database: str | None,
    tolerated: float,
) -> Split:
    """What lists say: a line an image, its id or its file's name, labels after it or not.

    A name may have more folders before it than the id, or fewer, but no others.

    Args:
        image_set: whose ids they are.
        seed: unused: nothing is drawn.
        queries: path of a list.
        train: path of a list.
        database: path of a list; None for all images but the queries.
        tolerated: share of a list that may name images which the set lacks.

    Raises:
        UserError: a list cannot be read, names too many unknown images or one of several, or a
            query is trained on or searched.
    """
    del seed
    query, training = (_listed(image_set, path, tolerated) for path in (queries, train))
    searched = np.setdiff1d(np.arange(len(image_set)), query)
    if database is not None:
        searched = _listed(image_set, database, tolerated)
    for name, path, indices in (("train", train, training), ("database", database, searched)):
        both = np.intersect1d(query, indices)
        if len(both):
            raise UserError(
                f"protocol.{name}={path} names {len(both)} of the queries, for example "
                f"{image_set.ids[both[0]]}. A query must be neither trained on nor searched."
            )
    return _split(train=training, query=query, database=searched)


def _tell_of_given_split(image_set: ImageSet) -> None:
    if image_set.is_test.any():
        tell(
            f"{image_set.name}: its {image_set.is_test.sum():,} test images are drawn from as all "
            "others are; protocol=test-vs-train queries with them"
        )


def _listed(image_set: ImageSet, path: str, tolerated: float) -> npt.NDArray[np.int64]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"protocol: the list {path} cannot be read: {error.strerror}.") from None
    lines = [line for line in text.split("\n") if line.strip()]
    position = {name: i for i, name in enumerate(image_set.ids.tolist())}
    ending: dict[str, list[str]] = {}
    for name in position:
        for end in _ends(name):
            ending.setdefault(end, []).append(name)
    found = [_row(line, position, ending, path) for line in lines]
    unknown = [line for line, row in zip(lines, found, strict=True) if row is None]
    if len(unknown) > tolerated * len(lines) or len(unknown) == len(lines):
        raise UserError(
            f"protocol: {path} names {len(lines):,} images, of which {image_set.name} lacks "
            f"{len(unknown):,}, more than protocol.tolerated={tolerated} of them"
            + (f"; for example {_named(unknown[0])}." if unknown else ".")
        )
    if unknown:
        tell(f"{path}: {len(unknown):,} of {len(lines):,} images are not there")
    listed = np.unique([row for row in found if row is not None])
    repeated = len(lines) - len(unknown) - len(listed)
    if repeated:
        tell(f"{path}: {repeated:,} of {len(lines):,} lines name an image again")
    return listed


def _row(
    line: str, position: dict[str, int], ending: dict[str, list[str]], path: str
) -> int | None:
    """The image that a line names: by its id, or by that with fewer folders or with more."""
    for name in (line.replace("\\", "/"), _named(line)):  # an id may end like labels: "img 1"
        if name in position:
            return position[name]
        ids = ending.get(name, [])
        if len(ids) > 1:
            raise UserError(
                f"protocol: {path} names {name}, which may be {ids[0]} or {ids[1]}. "
                "Name it with its folder."
            )
        near = [*ids, *(end for end in _ends(name) if end in position)]
        if near:
            return position[near[0]]
    return None


def _named(line: str) -> str:
    """A line without its labels, with folders as ids have them."""
    return re.sub(r"(\s+[01])*\s*$", "", line).replace("\\", "/")


def _ends(name: str) -> list[str]:
    """A name with ever fewer of its folders."""
    parts = name.split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]


def _members(labels: np.ndarray, classes: int) -> npt.NDArray[np.bool_]:
    """Which images are of which class: (n, classes)."""
    return labels > 0 if labels.ndim > 1 else labels[:, None] == np.arange(classes)


def _split(train: np.ndarray, query: np.ndarray, database: np.ndarray) -> Split:
    none = np.empty(0, dtype=np.int64)
    return Split(train, query, database, validation=none, validation_database=none)
