"""How well codes use their bits."""

import numpy as np
import numpy.typing as npt

from deephash.hamming.codes import unpack


def code_health(words: npt.NDArray[np.uint64], bits: int) -> dict[str, float]:
    """How well codes use their bits.

    Args:
        words: packed codes, uint64 (n, ceil(bits / 64)).
        bits: length of a code.

    Returns:
        `bit_imbalance`, mean over bits of |mean of the bit|, 0 where each bit is +1 for half of
        the items and 1 where all are constant; `bit_correlation`, mean |correlation| of two
        bits, over the pairs where both vary (0 where there is no such pair); `constant_bits`;
        `distinct_codes`, and `distinct_codes_share` of the n codes.

    Raises:
        ValueError: words do not fit the number of bits, or there are none.
    """
    codes = unpack(words, bits).astype(np.float64)
    if not len(codes):
        raise ValueError("there are no codes to measure: give at least one")
    means = codes.mean(axis=0)
    varies = np.abs(codes.sum(axis=0)) < len(codes)
    deviation = np.sqrt(1 - means[varies] ** 2)
    covariance = codes.T @ codes / len(codes) - np.outer(means, means)
    correlation = covariance[np.ix_(varies, varies)] / np.outer(deviation, deviation)
    pairs = np.abs(correlation[~np.eye(len(deviation), dtype=bool)])
    ascending = words[np.lexsort(words.T)]
    distinct = 1 + np.count_nonzero((ascending[1:] != ascending[:-1]).any(axis=1))
    return {
        "bit_imbalance": float(np.abs(means).mean()),
        "bit_correlation": float(pairs.mean()) if len(pairs) else 0.0,
        "constant_bits": float(np.count_nonzero(~varies)),
        "distinct_codes": float(distinct),
        "distinct_codes_share": distinct / len(codes),
    }
