"""Audit of a split: leaks between queries and other parts, duplicates, unusable images, counts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from deephash.data.files.decoded_cache import ImageFiles
from deephash.data.files.fingerprints import ContentHashes
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split
from deephash.hamming import knn
from deephash.hamming.codes import pack, sign

PARTS = ("query", "train", "validation", "database")

# Thresholds for near-duplicates. Of 2,000 photographs (MIML), all were found again after JPEG
# compression at quality 50, 70 and 90, also after resizing to 90 % or 110 %, and 98.9 % of them at
# half size; the four pairs found among the originals are true duplicates. So is the one pair found
# in CIFAR-10 (test/8299, train/35398; listed by ciFAIR); among the 10,000 x 60,000 pairs of MNIST
# there is none. Thumbnails in colour find fewer: JPEG reduces the resolution of colours.
MAX_HASH_DISTANCE = 8  # of 64 bits
NEIGHBOURS = 50  # nearest hashes that are compared with each query
MAX_DIFFERENCE = 4.0  # root mean square difference of the thumbnails, in levels of 255
MAX_RELATIVE_DIFFERENCE = 0.2  # of the lower contrast of both, as flat images all look the same
MIN_STEP = 2.0  # levels between neighbouring pixels; JPEG adds smaller steps to even areas

LUMA = torch.tensor([0.299, 0.587, 0.114])
THUMBNAIL_SIDE = 16
IMAGE_CHUNK = 256
QUERY_CHUNK = 500

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Leak:
    """A query, and an image of another part that is the same or a near-duplicate.

    Attributes:
        query: id of the query.
        other: id of the other image; the same id if the query itself is in another part.
        parts: parts of the split that contain the other image.
        difference: root mean square difference of their thumbnails, in levels of 255; 0 if their
            pixels are equal.
    """

    query: str
    other: str
    parts: list[str]
    difference: float


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Attributes:
        name: of the data set.
        data: checksum of the image set.
        split: checksum of the split.
        sizes: number of images of each part.
        classes: number of images of each class, by part.
        left_out: images that are unlabelled, repeated, contradictory, missing or broken, by reason.
        ignored_files: files whose suffix is not that of an image.
        duplicates_in_database: how many database images have the same pixels as another one there;
            not a leak.
        leaks: by `id` (including images that are left out), by `content` (equal pixels) and, if
            requested, by `near` (near-duplicates); no pair is listed twice.
    """

    name: str
    data: str
    split: str
    sizes: dict[str, int]
    classes: dict[str, dict[str, int]]
    left_out: dict[str, list[str]]
    ignored_files: list[str]
    duplicates_in_database: int
    leaks: dict[str, list[Leak]]

    @property
    def has_leaks(self) -> bool:
        """Whether an image that is trained on or searched is also a query."""
        return any(self.leaks.values())


def audit(image_set: ImageSet, split: Split, *, near_duplicates: bool) -> Audit:
    """Compare each query with all images that are trained on or searched.

    O(n log n) time and 264 bytes per image; near-duplicates take a comparison of two 64-bit words
    for each pair of a query and another image. Images in files are decoded once more, unless their
    pixels are cached.

    Args:
        image_set: all images.
        split: their split.
        near_duplicates: whether to look for near-duplicates too.

    Example:
        >>> from deephash.data.datasets.digits import digits
        >>> from deephash.data.protocols import stratified
        >>> image_set = digits()
        >>> split = stratified(image_set, seed=0, query_fraction=0.1)
        >>> audit(image_set, split, near_duplicates=False).has_leaks
        False
    """
    parts = {part: split.arrays()[part] for part in PARTS if len(split.arrays()[part])}
    others = np.unique(np.concatenate([split.train, split.validation, split.database]))
    hashes = image_set.content_hashes
    in_both = np.intersect1d(split.query, others)
    pairs = {
        "id": np.stack([in_both, in_both], axis=1),
        "content": _find_duplicates(hashes, split.query, others),
    }
    leaks = {kind: _describe_pairs(image_set.ids, found, parts) for kind, found in pairs.items()}
    report = image_set.report or {}
    unusable_queries = report.get("queries_in_other_parts", {})
    leaks["id"] += [Leak(name, name, in_parts, 0.0) for name, in_parts in unusable_queries.items()]
    if near_duplicates:
        near_pairs, differences = _find_near_duplicates(image_set, split.query, others)
        leaks["near"] = _describe_pairs(image_set.ids, near_pairs, parts, differences)
    unique_in_database = np.unique(hashes[split.database])
    return Audit(
        name=image_set.name,
        data=image_set.checksum,
        split=split.checksum,
        sizes={part: len(indices) for part, indices in parts.items()},
        classes={part: _count_classes(image_set, indices) for part, indices in parts.items()},
        left_out=report.get("left_out", {}),
        ignored_files=report.get("ignored_files", []),
        duplicates_in_database=len(split.database) - len(unique_in_database),
        leaks=leaks,
    )


def _count_classes(image_set: ImageSet, indices: Indices) -> dict[str, int]:
    labels = image_set.labels.numpy()[indices]
    if labels.ndim == 1:
        counts = np.bincount(labels, minlength=len(image_set.classes))
    else:
        counts = (labels > 0).sum(axis=0)
    return dict(zip(image_set.classes, counts.tolist(), strict=True))


def _describe_pairs(
    ids: np.ndarray,
    pairs: Indices,
    parts: Mapping[str, Indices],
    differences: npt.NDArray[np.float32] | None = None,
) -> list[Leak]:
    is_in_part = {
        part: np.isin(pairs[:, 1], indices) for part, indices in parts.items() if part != "query"
    }
    return [
        Leak(
            query=str(ids[query]),
            other=str(ids[other]),
            parts=[part for part, is_in in is_in_part.items() if is_in[row]],
            difference=0.0 if differences is None else round(float(differences[row]), 2),
        )
        for row, (query, other) in enumerate(pairs)
    ]


def _find_duplicates(hashes: ContentHashes, query: Indices, others: Indices) -> Indices:
    """Pairs (m, 2) of a query and another image with the same pixels.

    Every query and every other image with a duplicate is in a pair, but not all pairs are listed:
    of a placeholder such as "image not available" there may be millions.
    """
    query_pairs = _pair_with_first_duplicate(hashes, query, others)
    other_pairs = _pair_with_first_duplicate(hashes, others, query)[:, ::-1]
    pairs = np.unique(np.concatenate([query_pairs, other_pairs]), axis=0)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _pair_with_first_duplicate(
    hashes: ContentHashes, images: Indices, candidates: Indices
) -> Indices:
    """Each of `images` that has duplicates among `candidates`, with the first of them: (m, 2)."""
    unique_hashes, first = np.unique(hashes[candidates], return_index=True)
    position = np.searchsorted(unique_hashes, hashes[images]).clip(max=len(unique_hashes) - 1)
    has_duplicate = unique_hashes[position] == hashes[images]
    duplicates = candidates[first[position[has_duplicate]]]
    return np.stack([images[has_duplicate], duplicates], axis=1)


def _find_near_duplicates(
    image_set: ImageSet, query: Indices, others: Indices
) -> tuple[Indices, npt.NDArray[np.float32]]:
    """Pairs (m, 2) that look the same but differ in pixels, and their differences (m,)."""
    hashes, thumbnails = perceptual_signatures(image_set.images)
    content_hashes = image_set.content_hashes
    other_hashes, k = hashes[others], min(NEIGHBOURS, len(others))
    pairs, differences = [], []
    for chunk in np.array_split(query, len(query) // QUERY_CHUNK + 1):
        positions, distances = knn(hashes[chunk], other_hashes, k=k)
        row, rank = np.nonzero(distances <= MAX_HASH_DISTANCE)
        candidates = np.stack([chunk[row], others[positions[row, rank]]], axis=1)
        differs = content_hashes[candidates[:, 0]] != content_hashes[candidates[:, 1]]
        candidates = candidates[differs]
        looks = thumbnails[candidates].astype(np.float32)
        difference = np.sqrt(((looks[:, 0] - looks[:, 1]) ** 2).mean(axis=1))
        contrast = looks.std(axis=2).min(axis=1)
        is_near = difference < np.minimum(MAX_DIFFERENCE, MAX_RELATIVE_DIFFERENCE * contrast)
        pairs.append(candidates[is_near])
        differences.append(difference[is_near])
    return np.concatenate(pairs), np.concatenate(differences)


def perceptual_signatures(
    images: Tensor | ImageFiles,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    """Difference hashes and thumbnails, by which near-duplicates are recognised.

    O(n) time; the images are read in chunks.

    Args:
        images: uint8 (n, channels, height, width) with one channel or three.

    Returns:
        Hashes as packed codes, uint64 (n, 1): a bit for each of 8 x 8 neighbouring pairs in a grey
        image of 9 x 8 pixels, set if the left pixel is clearly darker. And grey thumbnails of 16 x
        16 pixels, uint8 (n, 256).
    """
    hashes, thumbnails = [], []
    for chunk in torch.arange(len(images)).split(IMAGE_CHUNK):
        pixels = images[chunk].float()
        grey = (pixels * LUMA[:, None, None]).sum(1, True) if pixels.shape[1] == 3 else pixels
        small = F.interpolate(grey, (8, 9), mode="bilinear", antialias=True)[:, 0]
        hashes.append(pack(sign((small.diff(dim=2) - MIN_STEP).flatten(1))))
        thumbnail = F.adaptive_avg_pool2d(grey, THUMBNAIL_SIDE).flatten(1)
        thumbnails.append(thumbnail.round().to(torch.uint8).numpy())
    return np.concatenate(hashes), np.concatenate(thumbnails)
