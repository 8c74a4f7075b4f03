"""What every data set of conf/dataset must satisfy, with its default protocol."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose_config, options
from sample_images import (
    sample_nuswide_labels,
    write_class_folders,
    write_idx,
    write_official_nuswide,
)

from deephash.core.instantiate import build
from deephash.data.datasets.nuswide_files import CONCEPTS, FREQUENT
from deephash.data.image_set import ImageSet
from deephash.data.splits import (
    Split,
    drop_query_duplicates,
    find_query_duplicates,
    hold_out_validation,
)
from deephash.experiment.settings import validate_settings

DOWNLOADED = {"mnist", "cifar10"}
NUSWIDE = sample_nuswide_labels(rows=400)
SIZES = {  # number of images
    "digits": 1797,
    "mnist": 70_000,
    "cifar10": 60_000,
    "images": 40,
    "fashionmnist": 600,
    "nuswide": NUSWIDE[:, [CONCEPTS.index(name) for name in FREQUENT]].any(axis=1).sum(),
}

Loaded = tuple[ImageSet, Callable[[int], Split]]  # the split by seed


def write_image_folder(folder: Path) -> list[str]:
    write_class_folders(folder / "images", per_class=20)
    return [f"data_dir={folder}"]


def write_nuswide(folder: Path) -> list[str]:
    write_official_nuswide(folder / "NUS-WIDE", NUSWIDE)
    return [f"data_dir={folder}", "protocol.queries_per_class=2", "protocol.train_per_class=4"]


def write_fashion_mnist(folder: Path) -> list[str]:
    for part, count in (("train", 400), ("t10k", 200)):
        raw = folder / "FashionMNIST" / "raw"
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28))
        write_idx(raw / f"{part}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    return [f"data_dir={folder}"]


WRITERS = {
    "image_folder": write_image_folder,
    "nuswide": write_nuswide,
    "torchvision": write_fashion_mnist,
}


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
    if name in WRITERS:
        folder = tmp_path_factory.mktemp(name)
        overrides = [*WRITERS[name](folder), f"dataset.decoded_dir={folder / 'decoded'}"]
    settings = validate_settings(compose_config(f"dataset={name}", *overrides))
    image_set = build("dataset", settings.dataset)

    def draw_split(seed: int) -> Split:
        return hold_out_validation(
            build("protocol", settings.protocol.node(), image_set, seed),
            image_set.labels.numpy(),
            fraction=settings.protocol.validation.fraction,
            database_size=settings.protocol.validation.database_size,
            seed=seed,
        )

    return image_set, draw_split


def test_images_labels_and_ids(loaded: Loaded) -> None:
    image_set, _ = loaded
    n = SIZES[image_set.name]
    assert len(image_set) == len(image_set.labels) == len(set(image_set.ids)) == n
    sample = image_set.images[torch.tensor([0, n - 1])]
    assert sample.dtype == torch.uint8
    assert (2, *image_set.images.shape[1:]) == sample.shape
    assert image_set.images.shape[0] == n
    if image_set.labels.ndim == 1:
        assert set(image_set.labels.tolist()) == set(range(len(image_set.classes)))
    else:
        assert image_set.labels.shape == (n, len(image_set.classes))
        assert set(image_set.labels.flatten().tolist()) == {0, 1}
        assert image_set.labels.any(dim=1).all()
        assert image_set.labels.any(dim=0).all()
    assert len(image_set.is_test) == n


def test_parts_of_a_split_that_must_be_disjoint_are(loaded: Loaded) -> None:
    image_set, draw_split = loaded
    split = draw_split(0)
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


def test_split_depends_only_on_the_seed(loaded: Loaded) -> None:
    _, draw_split = loaded
    assert draw_split(3).checksum == draw_split(3).checksum != draw_split(4).checksum


def test_no_query_has_a_duplicate_in_another_part(loaded: Loaded) -> None:
    image_set, draw_split = loaded
    split = draw_split(0)
    assert not find_query_duplicates(image_set, split).any()
    assert drop_query_duplicates(image_set, split).checksum == split.checksum


def test_checksum_depends_on_pixels_and_labels(loaded: Loaded) -> None:
    image_set, _ = loaded
    images = image_set.images[torch.arange(len(image_set))]
    pixels, labels = images.clone(), image_set.labels.clone()
    pixels[0, 0, 0, 0] ^= 1
    labels[0] = (labels[0] + 1) % 2

    def checksum(images: torch.Tensor, labels: torch.Tensor) -> str:
        return replace(image_set, images=images, labels=labels).checksum

    checksums = {
        checksum(images, image_set.labels),
        checksum(pixels, image_set.labels),
        checksum(images, labels),
    }
    assert len(checksums) == 3
