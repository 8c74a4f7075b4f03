"""scikit-learn's handwritten digits: real images that need no download."""

import numpy as np
import torch

from deephash.data.image_set import ImageSet


def digits() -> ImageSet:
    """Load the 1,797 digits of 8 x 8 pixels and 17 grey levels, doubled to 16 x 16 pixels.

    Every backbone accepts 16 x 16 pixels.

    Example:
        >>> image_set = digits()
        >>> image_set.images.shape, image_set.labels.shape, image_set.classes[:2]
        (torch.Size([1797, 1, 16, 16]), torch.Size([1797]), ('0', '1'))
    """
    from sklearn.datasets import load_digits  # slow to import

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
