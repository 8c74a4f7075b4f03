"""scikit-learn's handwritten digits: real images that need no download."""

import numpy as np
import torch
from sklearn.datasets import load_digits

from deephash.data.image_set import ImageSet


def digits() -> ImageSet:
    """The 1,797 digits of 8 x 8 pixels and 17 grey levels, each pixel doubled to 16 x 16.

    At 16 x 16 every backbone of the project takes them.
    """
    data = load_digits()
    images = (data.images * 15).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    return ImageSet(
        name="digits",
        images=torch.from_numpy(images)[:, None],
        labels=torch.from_numpy(data.target).long(),
        ids=np.array([f"digits/{i}" for i in range(len(images))]),
        classes=tuple(str(name) for name in data.target_names),
        is_test=np.zeros(len(images), dtype=bool),
    )
