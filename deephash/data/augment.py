"""Augmentation of whole batches, on the device, with randomness of its own for each sample.

The random numbers of an image depend on (seed, epoch, index of the image) alone: not on its batch,
the order, the device or the number of processes.
"""

import torch
from torch import Tensor


def translate_and_flip(
    images: Tensor, indices: Tensor, *, translate: int, flip: bool, seed: int, epoch: int
) -> Tensor:
    """Shift each image by up to `translate` pixels in both directions, mirror it with chance 1/2.

    What moves in from outside is the image's reflection.

    Args:
        images: (n, c, h, w), any type.
        indices: int64 (n,), of the images in their set.
        translate: pixels, less than h and w.
        flip: whether to mirror left and right.
        seed: of the run.
        epoch: makes each epoch's numbers others.
    """
    if not translate and not flip:
        return images
    n, _, height, width = images.shape
    draws = random_integers(indices, seed=seed, epoch=epoch, draws=3)
    down = draws[0] % (2 * translate + 1) - translate
    right = draws[1] % (2 * translate + 1) - translate
    rows = _reflected(torch.arange(height, device=images.device) + down[:, None], height)
    columns = torch.arange(width, device=images.device).expand(n, width)
    if flip:
        mirrored = (draws[2] % 2 == 1)[:, None]
        columns = torch.where(mirrored, width - 1 - columns, columns)
    columns = _reflected(columns + right[:, None], width)
    sample = torch.arange(n, device=images.device)
    return images[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


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
