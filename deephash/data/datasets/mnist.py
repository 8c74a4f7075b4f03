"""MNIST, through torchvision."""

from pathlib import Path

import numpy as np
import torch

from deephash.core.errors import UserError
from deephash.data.datasets.download import ensure_downloaded, unpack_idx
from deephash.data.image_set import ImageSet

FOLDER = "MNIST/raw"
FILES = [
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
]


def mnist(data_dir: str) -> ImageSet:
    """Load the 70,000 digits of 28 x 28 pixels, training images first.

    Args:
        data_dir: holds `MNIST/raw/`, its files gzipped or not, or is where they are downloaded to.

    Raises:
        UserError: files are missing and cannot be downloaded, or a file is truncated.
    """
    from torchvision.datasets import MNIST  # slow to import

    unpack_idx(Path(data_dir, FOLDER))
    ensure_downloaded(
        "mnist",
        Path(data_dir),
        FOLDER,
        FILES,
        MNIST.mirrors[0],
        lambda: MNIST(data_dir, download=True),
    )
    for name in FILES:
        _check_size(Path(data_dir, FOLDER, name))
    train, test = MNIST(data_dir, train=True), MNIST(data_dir, train=False)
    return ImageSet(
        name="mnist",
        images=torch.cat([train.data, test.data])[:, None],
        labels=torch.cat([train.targets, test.targets]),
        ids=np.array(
            [f"train/{i}" for i in range(len(train))] + [f"test/{i}" for i in range(len(test))]
        ),
        classes=tuple(name.split()[0] for name in train.classes),
        is_test=np.arange(len(train) + len(test)) >= len(train),
    )


def _check_size(path: Path) -> None:
    """Compare a file's size with its IDX header: type and rank, then sizes, all big-endian."""
    with path.open("rb") as file:
        header = np.frombuffer(file.read(16).ljust(16, b"\0"), dtype=">i4")
    rank = int(header[0]) & 0xFF if len(header) else 0
    expected = 4 + 4 * rank + int(header[1 : 1 + rank].prod()) if rank in (1, 3) else None
    if expected != path.stat().st_size:
        raise UserError(
            f"{path} is corrupt: {path.stat().st_size} bytes"
            + (
                f" instead of {expected}, as its header says"
                if expected
                else " without an IDX header"
            )
            + ". Delete it, and it is downloaded again."
        )
