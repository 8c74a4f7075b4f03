"""Augmentation of whole batches, on the device, with randomness of its own for each sample.

The random numbers of an image depend on (seed, epoch, index of the image) alone: not on its batch,
the order, the device or the number of processes.
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
    """Mirror each image, shift it in both directions, cut a square out.

    What moves in from outside is the image's reflection. The square's centre is anywhere in the
    image, and it gets the image's mean colour (DeVries & Taylor 2017, "Improved Regularization of
    Convolutional Neural Networks with Cutout").

    Args:
        images: uint8 (n, c, h, w).
        indices: int64 (n,), of the images in their set.
        translate: pixels at most, less than h and w.
        flip: whether to mirror left and right, with chance 1/2; "alternating": in every other
            epoch, and in the first with that chance, so that no two in a row show the same view
            (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU").
        cutout: side of the square in pixels, 0 for none.
        seed: of the run.
        epoch: makes each epoch's numbers others.
    """
    n, _, height, width = images.shape
    draws = random_integers(indices, seed=seed, epoch=epoch, draws=5)
    down = draws[0] % (2 * translate + 1) - translate
    right = draws[1] % (2 * translate + 1) - translate
    rows = _reflected(torch.arange(height, device=images.device) + down[:, None], height)
    columns = torch.arange(width, device=images.device).expand(n, width)
    if flip:
        mirrored = draws[2] % 2 == 1
        if flip == "alternating":
            in_first = random_integers(indices, seed=seed, epoch=0, draws=3)[2]
            mirrored = (in_first + epoch) % 2 == 1
        columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    columns = _reflected(columns + right[:, None], width)
    sample = torch.arange(n, device=images.device)
    moved = images[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    moved = moved.permute(0, 3, 1, 2)
    if not cutout:
        return moved
    inside = (
        _near(draws[3] % height, height, cutout)[:, :, None]
        & (_near(draws[4] % width, width, cutout)[:, None, :])
    )
    colour = moved.float().mean(dim=(2, 3), keepdim=True).round().to(moved.dtype)
    return torch.where(inside[:, None], colour, moved)


def _near(centre: Tensor, size: int, side: int) -> Tensor:
    """Which positions are in the stretch of that length about each centre: bool (n, size)."""
    offset = torch.arange(size, device=centre.device) - (centre[:, None] - side // 2)
    return (offset >= 0) & (offset < side)


def _reflected(position: Tensor, size: int) -> Tensor:
    position = position.abs()
    return torch.where(position >= size, 2 * (size - 1) - position, position)


def random_integers(indices: Tensor, *, seed: int, epoch: int, draws: int) -> Tensor:
    """Integers in [0, 2^31) that depend on seed, epoch, index and draw only: int64 (draws, n).

    Counter-based: a 32-bit mixing function (Wellons' lowbias32) of each counter, in int64
    arithmetic so that every device computes the same.
    """
    stream = torch.arange(draws, device=indices.device)[:, None]
    key = _mixed(_mixed(torch.tensor(seed & 0xFFFFFFFF)) + epoch).item()
    return _mixed(_mixed(indices[None, :] + key) + stream * 0x9E3779B9) >> 1


def _mixed(x: Tensor) -> Tensor:
    x = x & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)
