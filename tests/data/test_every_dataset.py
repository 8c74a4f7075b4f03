"""Contracts that every data set of conf/dataset keeps, under every protocol that fits it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed, options
from sample_images import class_folders, labels_of_nuswide, official_nuswide

from deephash.core.instantiate import build
from deephash.data.datasets.nuswide_files import CONCEPTS, FREQUENT
from deephash.data.image_set import ImageSet
from deephash.data.splits import (
    Split,
    drop_query_duplicates,
    find_query_duplicates,
    hold_out_validation,
)
from deephash.experiment.settings import checked

DOWNLOADED = {"mnist", "cifar10"}
NUSWIDE = labels_of_nuswide(rows=400)
SIZES = {
    "digits": 1797,
    "mnist": 70_000,
    "cifar10": 60_000,
    "images": 40,
    "nuswide": NUSWIDE[:, [CONCEPTS.index(name) for name in FREQUENT]].any(axis=1).sum(),
}

Loaded = tuple[ImageSet, Callable[[int], Split]]


def made_images(folder: Path) -> list[str]:
    class_folders(folder / "images", per_class=20)
    return [f"data_dir={folder}"]


def made_nuswide(folder: Path) -> list[str]:
    official_nuswide(folder / "NUS-WIDE", NUSWIDE)
    return [f"data_dir={folder}", "protocol.queries=2", "protocol.train=4"]


MADE = {"images": made_images, "nuswide": made_nuswide}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.realdata) if name in DOWNLOADED else name
        for name in options("dataset")
    ],
)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    name = request.param
    overrides = []
    if name in DOWNLOADED:
        overrides = [f"data_dir={request.getfixturevalue('data_dir')}"]
    if name in MADE:
        folder = tmp_path_factory.mktemp(name)
        overrides = [*MADE[name](folder), f"dataset.decoded_dir={folder / 'decoded'}"]
    settings = checked(composed(f"dataset={name}", *overrides))
    image_set = build("dataset", settings.dataset)

    def split(seed: int) -> Split:
        drawn = build("protocol", settings.protocol, image_set, seed)
        share, database = settings.validation.share, settings.validation.database
        return hold_out_validation(
            drawn, image_set.labels.numpy(), share=share, database=database, seed=seed
        )

    return image_set, split


def test_images_labels_and_ids(loaded: Loaded) -> None:
    image_set, _ = loaded
    n = SIZES[image_set.name]
    assert len(image_set) == len(image_set.labels) == len(set(image_set.ids)) == n
    some = image_set.images[torch.tensor([0, n - 1])]
    assert some.dtype == torch.uint8
    assert (2, *image_set.images.shape[1:]) == some.shape
    assert image_set.images.shape[0] == n
    if image_set.labels.ndim == 1:
        assert set(image_set.labels.tolist()) == set(range(len(image_set.classes)))
    else:
        assert image_set.labels.shape == (n, len(image_set.classes))
        assert set(image_set.labels.flatten().tolist()) == {0, 1}
        assert image_set.labels.any(dim=1).all()
        assert image_set.labels.any(dim=0).all()
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
    if image_set.labels.ndim == 1:
        assert set(image_set.labels[split.validation].tolist()) == set(
            range(len(image_set.classes))
        )


def test_split_is_fixed_by_the_seed(loaded: Loaded) -> None:
    _, split_of = loaded
    assert split_of(3).checksum == split_of(3).checksum != split_of(4).checksum


def test_no_query_is_copied_in_the_database(loaded: Loaded) -> None:
    image_set, split_of = loaded
    split = split_of(0)
    assert not find_query_duplicates(image_set, split).any()
    assert drop_query_duplicates(image_set, split).checksum == split.checksum


def test_checksum_sees_pixels_and_labels(loaded: Loaded) -> None:
    image_set, _ = loaded
    images = image_set.images[torch.arange(len(image_set))]
    pixels, labels = images.clone(), image_set.labels.clone()
    pixels[0, 0, 0, 0] ^= 1
    labels[0] = (labels[0] + 1) % 2

    def checksum(images: torch.Tensor, labels: torch.Tensor) -> str:
        return ImageSet("x", images, labels, image_set.ids, (), image_set.is_test).checksum

    all_three = {
        checksum(images, image_set.labels),
        checksum(pixels, image_set.labels),
        checksum(images, labels),
    }
    assert len(all_three) == 3
