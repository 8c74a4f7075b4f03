"""Exact k-nearest-neighbour search by comparing each query with all items."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deephash.hamming import cpu, gpu
from deephash.hamming.codes import Array, as_int, as_words


def knn(
    query_words: Array | Tensor, database_words: Array | Tensor, *, k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Find the k nearest items of each query, nearest first, ties in database order.

    The search is exact and takes O(q * n) comparisons. Besides the result, each CPU thread needs
    O(k) memory for each of up to 128 queries, so that the database may be a memory-mapped file that
    is larger than the memory. A database on a GPU is searched there, otherwise by a numba kernel on
    the CPU, with the same result.

    Args:
        query_words: packed codes, (q, words); uint64, or int64 in a tensor.
        database_words: packed codes, (n, words); uint64, or int64 in a tensor.
        k: number of items to find for each query, 1 to n.

    Returns:
        positions in the database, int64 (q, k), and Hamming distances, int32 (q, k).

    Raises:
        ValueError: words have the wrong shape or type, or k is not between 1 and n.

    Example:
        >>> database = np.array([[0b000], [0b011], [0b111]], np.uint64)
        >>> positions, distances = knn(np.array([[0b001]], np.uint64), database, k=2)
        >>> positions, distances
        (array([[0, 1]]), array([[1, 1]], dtype=int32))
    """
    k = as_int(k, "k")
    if not 1 <= k <= len(database_words):
        raise ValueError(f"k is {k}: give 1 to {len(database_words)}, the items of the database")
    if query_words.ndim != 2 or query_words.shape[1:] != database_words.shape[1:]:
        raise ValueError(
            f"query words have shape {tuple(query_words.shape)}, database words "
            f"{tuple(database_words.shape)}: give (q, words) and (n, words), packed from codes of "
            "the same length"
        )
    if isinstance(database_words, Tensor) and database_words.device.type != "cpu":
        query = torch.as_tensor(query_words).view(torch.int64).to(database_words.device)
        positions, distances = gpu.k_nearest(query, database_words, k)
        return positions.cpu().numpy(), distances.cpu().numpy().astype(np.int32)
    return cpu.k_nearest(as_words(query_words), as_words(database_words), k)
