"""The Hamming kernels in torch, for a GPU: some queries at a time, in whole numbers."""

from collections.abc import Callable

import torch
from torch import Tensor

PAIRS_PER_CHUNK = 2**24  # that are counted at a time; bounds the memory to about 1 GB
PAIRS_PER_SEARCH = 2**27  # that are compared at a time, in 16 bits each; likewise
POSITION_BITS, ROW_SHIFT = 40, 52  # of a sort key: the query, then the distance, then the position


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
    """Positions and distances of the k nearest, int64 (q, k) each, from int64 words (·, w).

    Closeness is a product of matrices of ±1. Of each chunk of the database only those items are
    looked at again that are closer than the k-th so far: at a tie the earlier ones stay.
    """
    width = 64 * query.shape[1]
    columns = max(k, PAIRS_PER_SEARCH // min(max(len(query), 64), 1024))
    chunks = []
    for words in query.split(max(1, PAIRS_PER_SEARCH // columns)):
        signs, row_keys = _signs(words), torch.arange(len(words), device=words.device) << ROW_SHIFT
        nearest, least = words.new_empty(0), None
        for start in range(0, len(database), columns):
            closeness = signs @ _signs(database[start : start + columns]).T  # equal bits less other
            if least is None:
                least = closeness.topk(k).values[:, -1] - 1
            row, column = (closeness > least[:, None]).nonzero(as_tuple=True)
            distance = (width - closeness[row, column].long()) // 2
            found = row_keys[row] | distance << POSITION_BITS | start + column
            keys = torch.cat([nearest.flatten(), found]).sort().values
            first = torch.searchsorted(keys, row_keys)
            nearest = keys[first[:, None] + torch.arange(k, device=keys.device)]
            least = width - 2 * _distance(nearest[:, -1])
        chunks.append(nearest)
    keys = torch.cat(chunks)
    return keys & (1 << POSITION_BITS) - 1, _distance(keys)


def _signs(words: Tensor) -> Tensor:
    """Bits as -1 and +1, (n, 64 w), in a type that holds sums of 2,048 of them exactly."""
    octets = words.contiguous().view(torch.uint8)
    bits = octets[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=words.device) & 1
    return 2 * bits.flatten(1).to(torch.float16) - 1


def _distance(keys: Tensor) -> Tensor:
    """That of a sort key."""
    return keys >> POSITION_BITS & (1 << ROW_SHIFT - POSITION_BITS) - 1


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
