"""What is wrong with a split: queries trained on or searched, copies, unusable rows; and counts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from deephash.data.files.decoded_cache import Hashes, ImageFiles
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split
from deephash.hamming import knn
from deephash.hamming.codes import pack, sign

PARTS = ("query", "train", "validation", "database")

# What makes a near-duplicate. Of 2,000 photographs (MIML) all were found again after JPEG of
# quality 50, 70 and 90, also made a tenth smaller or larger, and 98.9 % of them halved; the four
# pairs found among themselves are copies. So is the one of CIFAR-10 (test/8299, train/35398, in the
# list of ciFAIR); of MNIST's 10,000 x 60,000 pairs there is none. Thumbnails in colour are worse:
# JPEG keeps few of the pixels' colours.
BITS = 8  # of 64, at most, between the hashes
NEIGHBOURS = 50  # of a query that are looked at, nearest hashes first
DIFFERENCE = 4.0  # of the thumbnails, root mean square in levels of 255
OF_CONTRAST = 0.2  # nor more than this part of their contrast: flat images look all the same
CLEARLY = 2.0  # levels by which a pixel is lighter than the next: JPEG adds less to what is even

LUMA = torch.tensor([0.299, 0.587, 0.114])
SIDE = 16  # of a thumbnail
IMAGES_AT_ONCE = 256
QUERIES_AT_ONCE = 500

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """A query and an image that it should not meet.

    Attributes:
        query: its id.
        other: the other's id.
        parts: of the split that hold the other.
        difference: of their thumbnails, see `DIFFERENCE`; 0 where the pixels are the same.
    """

    query: str
    other: str
    parts: list[str]
    difference: float


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        name: of the data set.
        data: its checksum.
        split: its checksum.
        sizes: images of each part.
        classes: images of each class, by part.
        left_out: rows that are unlabelled, repeated, contradictory, missing or broken, by which.
        no_images: files that are passed over, because their names are not those of images.
        copies_in_database: how many of its images have the pixels of another; no leak.
        leaks: by `id`, of rows that are left out too, by `content` and, where looked for, `near`;
            none is listed twice.
    """

    name: str
    data: str
    split: str
    sizes: dict[str, int]
    classes: dict[str, dict[str, int]]
    left_out: dict[str, list[str]]
    no_images: list[str]
    copies_in_database: int
    leaks: dict[str, list[Pair]]

    @property
    def leaky(self) -> bool:
        """Whether a query is trained on or searched."""
        return any(self.leaks.values())


def audit(image_set: ImageSet, split: Split, *, near: bool) -> Audit:
    """Hold each query against all that is trained on or searched.

    O(n) time and 264 bytes an image, n log n for copies; and a comparison of two words for each
    query and other image. Images in files are decoded once more, unless they are kept.

    Args:
        image_set: all images.
        split: of them.
        near: whether to look for near-duplicates.
    """
    parts = {part: split.arrays()[part] for part in PARTS if len(split.arrays()[part])}
    others = np.unique(np.concatenate([split.train, split.validation, split.database]))
    contents = image_set.contents
    both = np.intersect1d(split.query, others)
    leaks = {
        "id": np.stack([both, both], axis=1),
        "content": _copies(contents, split.query, others),
    }
    named = {kind: _named(image_set.ids, pairs, parts) for kind, pairs in leaks.items()}
    report = image_set.report or {}
    elsewhere = report.get("queries_elsewhere", {})
    named["id"] += [Pair(name, name, held, 0.0) for name, held in elsewhere.items()]
    if near:
        pairs, differences = _near(image_set, split.query, others)
        named["near"] = _named(image_set.ids, pairs, parts, differences)
    return Audit(
        name=image_set.name,
        data=image_set.checksum,
        split=split.checksum,
        sizes={part: len(indices) for part, indices in parts.items()},
        classes={part: _class_counts(image_set, indices) for part, indices in parts.items()},
        left_out=report.get("left_out", {}),
        no_images=report.get("no_images_by_their_names", []),
        copies_in_database=len(split.database) - len(np.unique(contents[split.database])),
        leaks=named,
    )


def _class_counts(image_set: ImageSet, indices: Indices) -> dict[str, int]:
    labels = image_set.labels.numpy()[indices]
    if labels.ndim == 1:
        counts = np.bincount(labels, minlength=len(image_set.classes))
    else:
        counts = (labels > 0).sum(axis=0)
    return dict(zip(image_set.classes, counts.tolist(), strict=True))


def _named(
    ids: np.ndarray,
    pairs: Indices,
    parts: Mapping[str, Indices],
    differences: npt.NDArray[np.float32] | None = None,
) -> list[Pair]:
    holds = {part: np.isin(pairs[:, 1], held) for part, held in parts.items() if part != "query"}
    return [
        Pair(
            query=str(ids[query]),
            other=str(ids[other]),
            parts=[part for part, held in holds.items() if held[row]],
            difference=0.0 if differences is None else round(float(differences[row]), 2),
        )
        for row, (query, other) in enumerate(pairs)
    ]


def _copies(contents: Hashes, query: Indices, others: Indices) -> Indices:
    """Pairs (m, 2) of a query and another image with the same pixels.

    Each query that has a copy is in one, and so is each copy; of a queries and b copies not all
    a * b are: a picture that says "not available" would make millions.
    """
    of_queries = _first_copies(contents, query, others)
    of_others = _first_copies(contents, others, query)[:, ::-1]
    pairs = np.unique(np.concatenate([of_queries, of_others]), axis=0)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _first_copies(contents: Hashes, images: Indices, among: Indices) -> Indices:
    """Those of the images that have a copy, and the first of these: (m, 2)."""
    known, first = np.unique(contents[among], return_index=True)
    place = np.searchsorted(known, contents[images]).clip(max=len(known) - 1)
    copied = known[place] == contents[images]
    return np.stack([images[copied], among[first[place[copied]]]], axis=1)


def _near(
    image_set: ImageSet, query: Indices, others: Indices
) -> tuple[Indices, npt.NDArray[np.float32]]:
    """Pairs (m, 2) that look the same but are no copies, and their differences (m,)."""
    words, thumbnails = signatures(image_set.images)
    searched, k = words[others], min(NEIGHBOURS, len(others))
    pairs, differences = [], []
    for some in np.array_split(query, len(query) // QUERIES_AT_ONCE + 1):
        positions, distances = knn(words[some], searched, k=k)
        row, rank = np.nonzero(distances <= BITS)
        both = np.stack([some[row], others[positions[row, rank]]], axis=1)
        both = both[image_set.contents[both[:, 0]] != image_set.contents[both[:, 1]]]
        looks = thumbnails[both].astype(np.float32)
        difference = np.sqrt(((looks[:, 0] - looks[:, 1]) ** 2).mean(axis=1))
        contrast = looks.std(axis=2).min(axis=1)
        alike = difference < np.minimum(DIFFERENCE, OF_CONTRAST * contrast)
        pairs.append(both[alike])
        differences.append(difference[alike])
    return np.concatenate(pairs), np.concatenate(differences)


def signatures(
    images: Tensor | ImageFiles,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    """What near-duplicates are known by; O(n), some images at a time.

    Args:
        images: uint8 (n, channels, height, width), one channel or three.

    Returns:
        difference hashes, words (n, 1): whether each of 9 x 8 grey pixels is clearly darker than
        the one to its right; and thumbnails, 16 x 16 grey pixels, (n, 256).
    """
    words, thumbnails = [], []
    for some in torch.arange(len(images)).split(IMAGES_AT_ONCE):
        pixels = images[some].float()
        grey = (pixels * LUMA[:, None, None]).sum(1, True) if pixels.shape[1] == 3 else pixels
        small = F.interpolate(grey, (8, 9), mode="bilinear", antialias=True)[:, 0]
        words.append(pack(sign((small.diff(dim=2) - CLEARLY).flatten(1))))
        thumbnail = F.adaptive_avg_pool2d(grey, SIDE).flatten(1)
        thumbnails.append(thumbnail.round().to(torch.uint8).numpy())
    return np.concatenate(words), np.concatenate(thumbnails)
