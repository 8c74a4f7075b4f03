"""The nearest items of a query, found by comparing it with all of them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deephash.hamming import cpu, gpu
from deephash.hamming.words import as_words

Array = npt.NDArray[Any]


def knn(
    query_words: Array | Tensor, database_words: Array | Tensor, *, k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """The k nearest items of each query, exactly, nearest first, ties in database order.

    O(q * n) comparisons. Beside the result, a CPU thread takes O(k) memory for each of 128 queries,
    so the database may be a memory-mapped file larger than the memory. Words on a GPU are compared
    there, all others by a numba kernel on the CPU, with the same result.

    Args:
        query_words: packed codes, (q, words); uint64, or int64 in a tensor.
        database_words: packed codes, (n, words).
        k: how many items a query, at most n.

    Returns:
        positions in the database, int64 (q, k), and Hamming distances, int32 (q, k).

    Raises:
        ValueError: words have the wrong shape or type, or k is not between 1 and n.
    """
    if not 1 <= k <= len(database_words):
        raise ValueError(f"k is {k}: give 1 to the {len(database_words)} items of the database")
    if query_words.ndim != 2 or query_words.shape[1:] != database_words.shape[1:]:
        raise ValueError(
            f"query words have shape {tuple(query_words.shape)}, database words "
            f"{tuple(database_words.shape)}: give (q, words) and (n, words), packed from codes of "
            "one length"
        )
    if isinstance(database_words, Tensor) and database_words.device.type != "cpu":
        query = torch.as_tensor(query_words).view(torch.int64).to(database_words.device)
        positions, distances = gpu.k_nearest(query, database_words, k)
        return positions.cpu().numpy(), distances.cpu().numpy().astype(np.int32)
    return cpu.k_nearest(as_words(query_words), as_words(database_words), k)
