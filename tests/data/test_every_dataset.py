"""Contracts that every data set of conf/dataset keeps, under every protocol that fits it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed, options

from deephash.config import build, checked
from deephash.data.image_set import ImageSet
from deephash.data.protocols import Split, content_overlap, with_validation

DOWNLOADED = {"mnist", "cifar10"}
SIZES = {"digits": 1797, "mnist": 70_000, "cifar10": 60_000}

Loaded = tuple[ImageSet, Callable[[int], Split]]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.realdata) if name in DOWNLOADED else name
        for name in options("dataset")
    ],
)
def loaded(request: pytest.FixtureRequest) -> Loaded:
    name = request.param
    folder: Path | str = request.getfixturevalue("data_dir") if name in DOWNLOADED else "data"
    settings = checked(composed(f"dataset={name}", f"data_dir={folder}"))
    image_set = build("dataset", settings.dataset)

    def split(seed: int) -> Split:
        drawn = build("protocol", settings.protocol, image_set, seed)
        share, database = settings.validation.share, settings.validation.database
        return with_validation(
            drawn, image_set.labels.numpy(), share=share, database=database, seed=seed
        )

    return image_set, split


def test_images_labels_and_ids(loaded: Loaded) -> None:
    image_set, _ = loaded
    n = SIZES[image_set.name]
    assert len(image_set) == len(image_set.labels) == len(set(image_set.ids)) == n
    assert image_set.images.dtype == torch.uint8
    assert image_set.images.ndim == 4
    assert set(image_set.labels.tolist()) == set(range(len(image_set.classes)))
    assert len(image_set.is_test) == n


def test_split_is_disjoint_where_it_must_be(loaded: Loaded) -> None:
    image_set, split_of = loaded
    split = split_of(0)
    for name, indices in split.arrays().items():
        assert len(np.unique(indices)) == len(indices) > 0, name
        assert indices.max() < len(image_set)
    assert not np.intersect1d(split.query, split.database).size
    assert not np.intersect1d(split.query, split.train).size
    assert not np.intersect1d(split.query, split.validation).size
    assert not np.intersect1d(split.train, split.validation).size
    assert np.isin(split.validation_database, split.train).all()
    assert set(image_set.labels[split.validation].tolist()) == set(range(len(image_set.classes)))


def test_split_is_fixed_by_the_seed(loaded: Loaded) -> None:
    _, split_of = loaded
    assert split_of(3).checksum == split_of(3).checksum != split_of(4).checksum


def test_no_query_is_copied_in_the_database(loaded: Loaded) -> None:
    image_set, split_of = loaded
    assert content_overlap(image_set, split_of(0)) == 0


def test_checksum_sees_pixels_and_labels(loaded: Loaded) -> None:
    image_set, _ = loaded
    pixels, labels = image_set.images.clone(), image_set.labels.clone()
    pixels[0, 0, 0, 0] ^= 1
    labels[0] = (labels[0] + 1) % 10

    def checksum(images: torch.Tensor, labels: torch.Tensor) -> str:
        return ImageSet("x", images, labels, image_set.ids, (), image_set.is_test).checksum

    all_three = {
        checksum(image_set.images, image_set.labels),
        checksum(pixels, image_set.labels),
        checksum(image_set.images, labels),
    }
    assert len(all_three) == 3
