"""What the net is shown in training, validation and feature extraction, and in which mode."""

from itertools import chain, pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import (
    TinyRun,
    all_phases,
    make_data,
    make_image_set,
    make_phase,
    make_split,
    pixels,
)

from deephash.core.seeds import derived_seed
from deephash.data.augment import augment
from deephash.training.features import extract_features
from deephash.training.settings import AugmentSettings
from deephash.training.trainer import trainer_factory

AUGMENT = AugmentSettings(translate=2, flip=True, cutout=2)
SPLIT = make_split()


def original_pixels(indices: np.ndarray) -> list[tuple[int, ...]]:
    return pixels(make_image_set().images[torch.from_numpy(indices)])


def validation_pixels(name: str) -> list[tuple[int, ...]]:
    """In one epoch; a classifier is not shown the images that others are ranked against."""
    parts = [SPLIT.validation, SPLIT.validation_database]
    return original_pixels(SPLIT.validation if name == "pretrain" else np.concatenate(parts))


@pytest.mark.parametrize("name", ["pretrain", "hash"])
def test_training_images_are_augmented_and_validation_images_are_not(
    name: str, tmp_path: Path
) -> None:
    run = TinyRun(tmp_path, data=make_data(AUGMENT, seed=5))
    run.run({name: all_phases()[name]})
    assert run.net.images(training=False) == validation_pixels(name) * 2
    (recorder,) = run.recorders
    expected = []
    for epoch, batches in enumerate(recorder.epochs):
        indices = torch.tensor([index for batch in batches for index in batch])
        images = augment(
            make_image_set().images[indices],
            indices,
            translate=2,
            flip=True,
            cutout=2,
            seed=derived_seed(5, name, "batches"),
            epoch=epoch,
        )
        expected += pixels(images)
    shown = run.net.images(training=True)
    assert shown == expected
    assert not set(shown) & set(original_pixels(SPLIT.train))


def shift_by_hand(image: np.ndarray, down: int, right: int, mirrored: bool) -> np.ndarray:
    """Mirror (1, h, w), then translate with reflection by numpy's padding."""
    image = image[:, :, ::-1] if mirrored else image
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    return padded[:, 1 + down :, 1 + right :][:, : image.shape[1], : image.shape[2]]


def test_every_translation_and_mirroring_is_shown_as_often_as_the_others(tmp_path: Path) -> None:
    settings = AugmentSettings(translate=1, flip=True, cutout=0)
    run = TinyRun(tmp_path, data=make_data(settings))
    run.run({"pretrain": make_phase(epochs=9)})
    (recorder,) = run.recorders
    indices = [i for batches in recorder.epochs for batch in batches for i in batch]
    originals = make_image_set().images.numpy()
    counts = dict.fromkeys(product((-1, 0, 1), (-1, 0, 1), (False, True)), 0)
    for index, shown in zip(indices, run.net.images(training=True), strict=True):
        (view,) = (
            view
            for view in counts
            if tuple(shift_by_hand(originals[index], *view).ravel().tolist()) == shown
        )
        counts[view] += 1
    # 288 images: 16 of each view are expected, with a deviation of 4.
    assert 4 < min(counts.values()) < max(counts.values()) < 32


def test_features_are_of_images_that_are_not_augmented_each_computed_once(tmp_path: Path) -> None:
    run = TinyRun(tmp_path, data=make_data(AUGMENT))
    run.run({"init": all_phases()["init"]})
    assert run.net.images(training=True) == []
    needed = original_pixels(np.concatenate([SPLIT.train, SPLIT.validation]))
    assert run.net.images(training=False) == needed


@pytest.mark.parametrize("name", ["pretrain", "hash"])
def test_batch_norm_learns_from_training_batches_alone(name: str, tmp_path: Path) -> None:
    run = TinyRun(tmp_path)
    run.run({name: all_phases()[name]})
    assert run.net.norm.num_batches_tracked == 8  # two epochs of four batches
    assert [training for training, _ in run.net.calls].count(True) == 8
    mean, variance = torch.zeros(5).double(), torch.ones(5).double()
    for outputs in run.net.training_outputs:  # by the definition of the running statistics
        mean = 0.9 * mean + 0.1 * outputs.mean(dim=0)
        variance = 0.9 * variance + 0.1 * outputs.var(dim=0)
    torch.testing.assert_close(run.net.norm.running_mean, mean)
    torch.testing.assert_close(run.net.norm.running_var, variance)


def test_batch_norm_learns_again_after_features_were_extracted(tmp_path: Path) -> None:
    run = TinyRun(tmp_path)
    run.run(all_phases())
    assert run.net.norm.num_batches_tracked == 8 + 8
    # Training, validation after each epoch, features of 50 images, training and validation.
    modes = [training for training, _ in run.net.calls]
    changes = [modes[0]] + [b for a, b in pairwise(modes) if a != b]
    assert changes == [True, False] * 4
    assert modes.count(True) == 16


def test_features_are_those_of_the_backbone_in_evaluation_mode(tmp_path: Path) -> None:
    run = TinyRun(tmp_path, data=make_data(AUGMENT))
    run.run({"pretrain": make_phase()})
    run.model.backbone.train()
    before = run.weights()
    make_trainer = trainer_factory(
        {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "precision": "64-true"},
        tmp_path,
    )
    indices = np.array([3, 50, 7])
    features = extract_features(run.model.backbone, run.data.serve(2), indices, make_trainer)
    assert all(torch.equal(value, before[name]) for name, value in run.weights().items())
    net = run.net.eval()
    with torch.no_grad():
        expected = net(make_image_set().images[torch.from_numpy(indices)].double())
    torch.testing.assert_close(features, expected, rtol=1e-12, atol=0)
    # By hand: standardised by the statistics that training has left.
    flat = (make_image_set().images[torch.from_numpy(indices)].flatten(1).double() - 80) / 50
    linear = flat @ net.linear.weight.T + net.linear.bias
    norm = net.norm
    scaled = (linear - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    by_hand = torch.tanh(scaled * norm.weight + norm.bias).detach()
    torch.testing.assert_close(features, by_hand, rtol=1e-9, atol=1e-12)


def test_each_epoch_shows_each_training_image_once_in_another_order(tmp_path: Path) -> None:
    def orders(name: str, seed: int = 0, folder: str = "run") -> list[list[int]]:
        run = TinyRun(tmp_path / folder, data=make_data(seed=seed))
        run.run({name: make_phase(epochs=3)})
        (recorder,) = run.recorders
        assert [[len(batch) for batch in batches] for batches in recorder.epochs] == [[8] * 4] * 3
        return [list(chain(*batches)) for batches in recorder.epochs]

    first = orders("pretrain")
    assert [sorted(order) for order in first] == [SPLIT.train.tolist()] * 3
    assert orders("pretrain", folder="again") == first
    others = orders("pretrain", seed=1, folder="seed") + orders("other", folder="phase")
    different = {tuple(order) for order in first + others}
    assert len(different) == 9
    assert tuple(SPLIT.train) not in different
