"""Labels of codes: class indices or multi-hot labels, and the keys that are compared for them."""

import numpy as np
from torch import Tensor

from deephash.hamming.codes import Array, as_array, pack_nonzero


def check_labels(labels: Array | Tensor, name: str) -> None:
    """Check that labels are class indices or multi-hot labels, and cannot be taken for the other.

    Args:
        labels: class indices (n,) from 0, or multi-hot labels of 0 and 1, (n, c) with c >= 2.
        name: what to call them in an error message.

    Raises:
        ValueError: labels have another shape, type or values.

    Example:
        >>> check_labels(np.array([[1], [0]]), "labels")
        Traceback (most recent call last):
        ValueError: labels have shape (2, 1): give class indices as (n,), multi-hot labels as ...
    """
    array = as_array(labels)
    if array.ndim not in (1, 2) or array.dtype.kind not in "iub":
        raise ValueError(
            f"{name} have shape {array.shape} and type {array.dtype}: give integers, class indices "
            "(n,) or multi-hot labels (n, c)"
        )
    if array.ndim == 2 and array.shape[1] < 2:
        raise ValueError(
            f"{name} have shape {array.shape}: give class indices as (n,), multi-hot labels as "
            "(n, c) with at least two columns"
        )
    lowest, highest = int(array.min(initial=0)), int(array.max(initial=0))
    limit = 1 if array.ndim == 2 else np.iinfo(np.int64).max
    if lowest < 0 or highest > limit:
        value = lowest if lowest < 0 else highest
        row = np.argwhere(array == value)[0][0]
        if array.ndim == 2:
            rule = "multi-hot labels are 0 and 1; for -1 and +1, give labels > 0"
        else:
            rule = f"class indices are 0 to {limit}; leave items without a label out"
        raise ValueError(f"{name} have the value {value} in row {row}: {rule}")


def label_keys(labels: Array) -> Array:
    """Convert class indices to int64 (n,), and pack multi-hot labels into uint64 (n, words)."""
    if labels.ndim == 1:
        return labels.astype(np.int64)
    return pack_nonzero(labels)
