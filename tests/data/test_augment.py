import numpy as np
import torch

from deephash.data.augment import augment, random_integers

IMAGES = torch.arange(40 * 2 * 6 * 7, dtype=torch.int64).view(40, 2, 6, 7)
INDICES = torch.arange(100, 140)


def translate_with_numpy(image: np.ndarray, down: int, right: int, flip: bool) -> np.ndarray:
    """Flip, then translate with reflection by numpy's padding."""
    image = image[:, :, ::-1] if flip else image
    margin = 3
    padded = np.pad(image, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    top, left = margin + down, margin + right
    return padded[:, top : top + image.shape[1], left : left + image.shape[2]]


def test_each_image_is_translated_with_reflection_and_maybe_flipped() -> None:
    seen = set()
    augmented = augment(IMAGES, INDICES, translate=2, flip=True, cutout=0, seed=0, epoch=0)
    for original, image in zip(IMAGES.numpy(), augmented.numpy(), strict=True):
        matches = [
            (down, right, flip)
            for down in range(-2, 3)
            for right in range(-2, 3)
            for flip in (False, True)
            if np.array_equal(translate_with_numpy(original, down, right, flip), image)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 20  # of 50 combinations, in 40 images


def test_augmentation_depends_only_on_seed_epoch_and_index() -> None:
    def augment_some(indices: torch.Tensor = INDICES, **kwargs: int) -> torch.Tensor:
        settings = {"translate": 2, "flip": True, "cutout": 3, "seed": 0, "epoch": 0} | kwargs
        return augment(IMAGES[indices - 100], indices, **settings)

    order = torch.randperm(40)
    assert torch.equal(augment_some(INDICES[order]), augment_some()[order])
    assert torch.equal(augment_some(INDICES[5:9]), augment_some()[5:9])
    assert not torch.equal(augment_some(seed=1), augment_some())
    assert not torch.equal(augment_some(epoch=1), augment_some())


def test_alternating_flip_shows_different_views_in_successive_epochs() -> None:
    def flipped(epoch: int, seed: int = 0) -> np.ndarray:
        images = augment(
            IMAGES, INDICES, translate=0, flip="alternating", cutout=0, seed=seed, epoch=epoch
        )
        is_unchanged = (images == IMAGES).flatten(1).all(dim=1)
        assert torch.equal((images == IMAGES.flip(3)).flatten(1).all(dim=1), ~is_unchanged)
        return ~is_unchanged.numpy()

    views = np.stack([flipped(epoch) for epoch in range(6)])
    np.testing.assert_array_equal(views[1:], ~views[:-1])
    assert 10 < views[0].sum() < 30  # about half of 40
    assert (views[0] != flipped(0, seed=1)).any()


def test_no_augmentation_leaves_images_unchanged() -> None:
    unchanged = augment(IMAGES, INDICES, translate=0, flip=False, cutout=0, seed=0, epoch=0)
    assert torch.equal(unchanged, IMAGES)


def test_cutout_is_centred_on_any_pixel() -> None:
    images = torch.randint(0, 256, (2000, 3, 8, 9), dtype=torch.uint8)
    images[:, :, 0, 0] = 255  # no image has its mean colour everywhere
    augmented = augment(
        images, torch.arange(2000), translate=0, flip=False, cutout=3, seed=0, epoch=0
    )
    squares = {
        (row, column): [
            (y, x)
            for y in range(max(0, row - 1), min(8, row + 2))
            for x in range(max(0, column - 1), min(9, column + 2))
        ]
        for row in range(8)
        for column in range(9)
    }
    seen = set()
    for before, after in zip(images.numpy(), augmented.numpy(), strict=True):
        mean = np.round(before.mean(axis=(1, 2), dtype=np.float32)).astype(np.uint8)
        changed = {tuple(position) for position in np.argwhere((before != after).any(axis=0))}
        centres = [
            centre
            for centre, square in squares.items()
            if changed <= set(square) and all((after[:, y, x] == mean).all() for y, x in square)
        ]
        assert centres
        seen.update(centres if len(centres) == 1 else [])
    assert seen == set(squares)


def test_random_integers_are_uniform_and_independent() -> None:
    draws = random_integers(torch.arange(100_000), seed=0, epoch=0, draws=3)
    assert draws.min() >= 0
    assert draws.max() < 2**31
    for draw in draws:
        # Chi-squared over 100 cells: mean 99, deviation 14.
        cells = torch.bincount(draw % 100, minlength=100).double()
        assert ((cells - 1000) ** 2 / 1000).sum() < 99 + 5 * 14
    standard = (draws.double() / 2**31 - 0.5) * 12**0.5
    neighbour = random_integers(torch.arange(100_000), seed=0, epoch=1, draws=3)[0]
    others = torch.cat([standard, (neighbour.double() / 2**31 - 0.5)[None] * 12**0.5])
    correlation = others @ others.T / 100_000 - torch.eye(4)
    assert correlation.abs().max() < 5 / 100_000**0.5
