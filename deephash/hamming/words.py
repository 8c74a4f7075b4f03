"""Packed codes as the kernels take them."""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

Array = npt.NDArray[Any]


def as_array(values: Array | Tensor) -> Array:
    """A contiguous array; a memory-mapped one is not read."""
    array = values.cpu().numpy() if isinstance(values, Tensor) else values
    return np.ascontiguousarray(array)


def as_words(values: Array | Tensor) -> npt.NDArray[np.uint64]:
    """Words as a contiguous uint64 array.

    Raises:
        ValueError: they are neither uint64 nor int64.
    """
    array = as_array(values)
    if array.dtype not in (np.uint64, np.int64):
        raise ValueError(
            f"words have type {array.dtype}: give uint64 from deephash.hamming.codes.pack"
        )
    return array.view(np.uint64)
