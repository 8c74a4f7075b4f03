"""The Hamming kernels in torch, for a GPU: some queries at a time, in whole numbers."""

from collections.abc import Callable

import torch
from torch import Tensor

PAIRS_PER_CHUNK = 2**24  # bounds the memory to about 1 GB
POSITION_BITS = 40  # of a sort key: distance first, then position


def histogram(
    query: Tensor, query_keys: Tensor, database: Tensor, database_keys: Tensor, *, bits: int
) -> tuple[Tensor, Tensor]:
    """Items and relevant items by query and distance, (q, bits + 1), from int64 words and keys."""
    bins = 2 * (bits + 1)
    rows = max(1, PAIRS_PER_CHUNK // max(1, len(database)))
    chunks = []
    for words, keys in zip(query.split(rows), query_keys.split(rows), strict=True):
        distance = _distances(words, database)
        if keys.ndim == 1:
            shared = keys[:, None] == database_keys
        else:
            pairs = zip(keys.T, database_keys.T, strict=True)
            shared = torch.stack([(a[:, None] & b) != 0 for a, b in pairs]).any(dim=0)
        chunks.append(_counted(2 * distance + shared, bins))
    counts = torch.cat(chunks).view(len(query), bits + 1, 2)
    return counts.sum(dim=2), counts[:, :, 1]


def graded_histogram(
    query: Tensor,
    query_keys: Tensor,
    database: Tensor,
    database_keys: Tensor,
    *,
    bits: int,
    gain: Tensor,
) -> tuple[Tensor, ...]:
    """What `cpu.graded_histogram` returns, on the CPU, from int64 words and keys.

    `gain`, float64, stays on the CPU, and the sums are made there: Apple's GPUs lack the type.
    """
    bins = (bits + 1) * len(gain)
    rows = max(1, PAIRS_PER_CHUNK // max(bins, len(database)))
    grade = torch.arange(len(gain))
    chunks = []
    for words, keys in zip(query.split(rows), query_keys.split(rows), strict=True):
        cells = _distances(words, database) * len(gain) + _grades(keys, database_keys)
        counts = _counted(cells, bins).view(len(words), bits + 1, len(gain)).cpu()
        relevant, grades, gains = (
            (counts * weight).sum(dim=2) for weight in (grade > 0, grade, gain)
        )
        chunks.append((counts.sum(dim=2), relevant, grades, gains, counts.sum(dim=1)))
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))


def k_nearest(query: Tensor, database: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Positions and distances of the k nearest, int64 (q, k) each, from int64 words (·, w)."""
    columns = max(1, min(len(database), PAIRS_PER_CHUNK // 64))
    rows = max(1, PAIRS_PER_CHUNK // columns)
    chunks = []
    for words in query.split(rows):
        nearest = torch.empty(len(words), 0, dtype=torch.int64, device=words.device)
        for start in range(0, len(database), columns):
            distance = _distances(words, database[start : start + columns])
            position = torch.arange(start, start + distance.shape[1], device=words.device)
            keys = torch.cat([nearest, distance << POSITION_BITS | position], dim=1)
            nearest = keys.topk(min(k, keys.shape[1]), largest=False, sorted=True).values
        chunks.append(nearest)
    keys = torch.cat(chunks)
    return keys & (1 << POSITION_BITS) - 1, keys >> POSITION_BITS


def _counted(values: Tensor, bins: int) -> Tensor:
    """How often each row holds each number below `bins`, (rows, bins)."""
    first_bin = torch.arange(len(values), device=values.device)[:, None] * bins
    counts = torch.bincount((first_bin + values).flatten(), minlength=len(values) * bins)
    return counts.view(len(values), bins)


def _distances(query: Tensor, database: Tensor) -> Tensor:
    return _set_bits(torch.bitwise_xor, query, database)


def _grades(query_keys: Tensor, database_keys: Tensor) -> Tensor:
    """Numbers of shared labels."""
    return _set_bits(torch.bitwise_and, query_keys, database_keys)


def _set_bits(
    combined: Callable[[Tensor, Tensor], Tensor], query: Tensor, database: Tensor
) -> Tensor:
    """Set bits of the combined words of each pair, int64 (q, n)."""
    count = torch.zeros(len(query), len(database), dtype=torch.int64, device=query.device)
    for a, b in zip(query.T, database.T, strict=True):
        count += _popcount(combined(a[:, None], b))
    return count


def _popcount(words: Tensor) -> Tensor:
    """Set bits of int64 words, by sums over ever wider fields: torch has no popcount."""
    pairs = words - (words >> 1 & 0x5555555555555555)
    nibbles = (pairs & 0x3333333333333333) + (pairs >> 2 & 0x3333333333333333)
    octets = nibbles + (nibbles >> 4) & 0x0F0F0F0F0F0F0F0F
    return octets * 0x0101010101010101 >> 56
