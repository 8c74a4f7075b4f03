"""What a run says of its data before the training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ComposeRun, compose_config
from sample_images import write_class_folders

from deephash.core.errors import UserError
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split
from deephash.experiment import inputs
from deephash.experiment.data import check_against_data, load_data
from deephash.experiment.run import run
from deephash.experiment.settings import validate_settings

PARTS = np.arange(8)
SPLIT = Split(PARTS[:4], PARTS[4:6], PARTS[:4], PARTS[6:7], PARTS[7:])


def make_image_set(name: str = "mine", side: int = 32) -> ImageSet:
    return ImageSet(
        name=name,
        images=np.zeros((8, 1, side, side), dtype=np.uint8),
        labels=[0, 1] * 4,
        ids=list("abcdefgh"),
        classes=("x", "y"),
        is_test=[False] * 8,
    )


def make_images_with_copies() -> ImageSet:
    """100 images of noise; the second half are copies of the first."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (50, 1, 16, 16), dtype=torch.uint8, generator=generator)
    return ImageSet(
        name="copies",
        images=torch.cat([noise, noise]),
        labels=torch.arange(100) % 2,
        ids=[f"{i}.png" for i in range(100)],
        classes=("x", "y"),
        is_test=[False] * 100,
    )


@pytest.mark.parametrize(
    ("name", "side", "settings", "better"),
    [
        ("cifar100", 32, [], "backbone=resnet_small augment.translate=2"),
        ("svhn", 32, [], "backbone=resnet_small augment.translate=2 augment.flip=false"),
        ("svhn", 32, ["backbone=resnet_small", "augment.translate=2"], "augment.flip=false"),
        ("gtsrb", 64, [], "augment.flip=false"),
        ("gtsrb", 64, ["augment.flip=false"], None),
        ("food101", 64, [], None),
        ("cifar10", 32, ["recipe=cifar10"], None),
    ],
)
def test_settings_that_suit_small_images_and_signs_are_named(
    name: str,
    side: int,
    settings: list[str],
    better: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen = validate_settings(compose_config("dataset=torchvision", "recipe=default", *settings))
    with caplog.at_level("INFO", "deephash"):
        check_against_data(chosen, make_image_set(name, side), SPLIT, 1)
    told = f"{name}: backbone and augmentation are made for photographs of 64 pixels; for its "
    lines = [f"{told}images, {side} x {side}, better set {better}"] if better else []
    assert caplog.messages == lines


def test_copies_of_queries_that_are_left_out_are_told(
    compose_run: ComposeRun, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    cfg = compose_run("protocol=10-percent")
    cfg.dataset = {"_target_": f"{__name__}.make_images_with_copies"}
    with caplog.at_level("INFO", "deephash"):
        _, split = load_data(validate_settings(cfg))
    left_out = np.setdiff1d(np.arange(100), np.concatenate([split.query, split.database]))
    query = next(i for i in split.query if i % 50 == left_out[0] % 50)
    assert (
        f"{len(left_out)} images with the pixels of a query are left out of training set and "
        f"database; for example {left_out[0]}.png, of {query}.png"
    ) in caplog.messages


def test_a_backbone_without_its_package_is_refused_before_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "IMAGENET", "no_such_package")
    write_class_folders(tmp_path / "photos")
    cfg = compose_config(
        "experiment=image_folder_pretrained",
        f"dataset.path={tmp_path / 'photos'}",
        f"dataset.decoded_dir={tmp_path / 'decoded'}",
        f"run_dir={tmp_path / 'run'}",
    )
    with pytest.raises(UserError, match=r"pip install 'deephash\[imagenet\]'"):
        run(cfg)
    assert not (tmp_path / "decoded").exists()
