"""CIFAR-10, through torchvision."""

from pathlib import Path

import numpy as np
import torch

from deephash.core.errors import UserError
from deephash.data.datasets.download import ensure_downloaded
from deephash.data.image_set import ImageSet

FOLDER = "cifar-10-batches-py"


def cifar10(data_dir: str) -> ImageSet:
    """Load the 60,000 photographs of 32 x 32 pixels, training images first.

    Args:
        data_dir: holds `cifar-10-batches-py/`, or is where the files are downloaded to.

    Raises:
        UserError: files are missing and cannot be downloaded, or a file is corrupt.
    """
    from torchvision.datasets import CIFAR10  # slow to import
    from torchvision.datasets.utils import check_integrity

    folder = Path(data_dir) / FOLDER
    md5_of_file = published_md5()
    ensure_downloaded(
        "cifar10",
        Path(data_dir),
        FOLDER,
        list(md5_of_file),
        CIFAR10.url,
        lambda: CIFAR10(data_dir, download=True),
    )
    for name, md5 in md5_of_file.items():
        if not check_integrity(str(folder / name), md5):
            raise UserError(
                f"{folder / name} is corrupt: its MD5 is not {md5}. Delete it, and it is "
                "downloaded again."
            )
    train, test = CIFAR10(data_dir, train=True), CIFAR10(data_dir, train=False)
    pixels = torch.from_numpy(np.concatenate([train.data, test.data]))
    return ImageSet(
        name="cifar10",
        images=pixels.permute(0, 3, 1, 2).contiguous(),
        labels=torch.tensor(train.targets + test.targets),
        ids=np.array(
            [f"train/{i}" for i in range(len(train))] + [f"test/{i}" for i in range(len(test))]
        ),
        classes=tuple(train.classes),
        is_test=np.arange(len(train) + len(test)) >= len(train),
    )


def published_md5() -> dict[str, str]:
    """MD5 of each file of the data set, as published."""
    from torchvision.datasets import CIFAR10

    meta = ("batches.meta", CIFAR10.meta["md5"])
    return dict([*CIFAR10.train_list, *CIFAR10.test_list, meta])
