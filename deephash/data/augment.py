"""Augmentation of whole batches, on the device, with independent random numbers for each image.

The random numbers depend only on (seed, epoch, index of the image): not on the batch, its order,
the device or the number of processes.
"""

from typing import Literal

import torch
from torch import Tensor

Flip = Literal[False, True, "alternating"]


def augment(
    images: Tensor,
    indices: Tensor,
    *,
    translate: int,
    flip: Flip,
    cutout: int,
    seed: int,
    epoch: int,
) -> Tensor:
    """Flip images horizontally, translate them in both directions, and cut a square out of each.

    Translation fills the border by reflection. The centre of the square is anywhere in the image,
    and the square is filled with the image's mean colour (DeVries & Taylor 2017, "Improved
    Regularization of Convolutional Neural Networks with Cutout").

    Args:
        images: uint8 (n, c, h, w).
        indices: int64 (n,), indices of the images in their image set.
        translate: largest translation in pixels, less than h and w.
        flip: whether to flip with probability 1/2. "alternating" flips in every other epoch, and in
            the first one with probability 1/2, so that successive epochs show different views
            (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU").
        cutout: side of the square in pixels, 0 for none.
        seed: of the run.
        epoch: number of the epoch; each has other random numbers.

    Returns:
        uint8 (n, c, h, w).

    Example:
        >>> images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
        >>> settings = {"translate": 1, "flip": True, "cutout": 2, "seed": 0, "epoch": 0}
        >>> batch = augment(images, torch.arange(4), **settings)
        >>> torch.equal(batch[2:], augment(images[2:], torch.tensor([2, 3]), **settings))
        True
    """
    n, _, height, width = images.shape
    draws = random_integers(indices, seed=seed, epoch=epoch, draws=5)
    down = draws[0] % (2 * translate + 1) - translate
    right = draws[1] % (2 * translate + 1) - translate
    rows = _reflect(torch.arange(height, device=images.device) + down[:, None], height)
    columns = torch.arange(width, device=images.device).expand(n, width)
    if flip:
        is_flipped = draws[2] % 2 == 1
        if flip == "alternating":
            first_draw = random_integers(indices, seed=seed, epoch=0, draws=3)[2]
            is_flipped = (first_draw + epoch) % 2 == 1
        columns = torch.where(is_flipped[:, None], width - 1 - columns, columns)
    columns = _reflect(columns + right[:, None], width)
    sample = torch.arange(n, device=images.device)
    moved = images[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    moved = moved.permute(0, 3, 1, 2)
    if not cutout:
        return moved
    in_rows = _cover(draws[3] % height, height, cutout)
    in_columns = _cover(draws[4] % width, width, cutout)
    in_square = in_rows[:, :, None] & in_columns[:, None, :]
    mean_colour = moved.float().mean(dim=(2, 3), keepdim=True).round().to(moved.dtype)
    return torch.where(in_square[:, None], mean_colour, moved)


def random_integers(indices: Tensor, *, seed: int, epoch: int, draws: int) -> Tensor:
    """Random integers in [0, 2^31) that depend only on seed, epoch, index and draw.

    Counter-based: a 32-bit mixing function (Wellons' lowbias32) of each counter, in int64
    arithmetic, so that all devices compute the same numbers.

    Args:
        indices: int64 (n,), indices of the images in their image set.
        seed: of the run.
        epoch: number of the epoch.
        draws: how many numbers each image needs.

    Returns:
        int64 (draws, n).
    """
    stream = torch.arange(draws, device=indices.device)[:, None]
    key = _mix(_mix(torch.tensor(seed & 0xFFFFFFFF)) + epoch).item()
    return _mix(_mix(indices[None, :] + key) + stream * 0x9E3779B9) >> 1


def _cover(centre: Tensor, size: int, side: int) -> Tensor:
    """Which of `size` positions lie in the interval of length `side` around each centre (n,).

    Returns:
        bool (n, size).
    """
    offset = torch.arange(size, device=centre.device) - (centre[:, None] - side // 2)
    return (offset >= 0) & (offset < side)


def _reflect(position: Tensor, size: int) -> Tensor:
    """Reflect positions outside of [0, size) back into it."""
    position = position.abs()
    return torch.where(position >= size, 2 * (size - 1) - position, position)


def _mix(x: Tensor) -> Tensor:
    x = x & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)
