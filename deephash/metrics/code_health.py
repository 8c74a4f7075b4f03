"""Statistics that tell how well codes use their bits."""

import numpy as np
import numpy.typing as npt

from deephash.hamming.codes import unpack

CODES_PER_CHUNK = 2**16  # unpacked at a time; their sums are exact in float32


def code_health(words: npt.NDArray[np.uint64], bits: int) -> dict[str, float]:
    """Measure how well codes use their bits.

    Args:
        words: packed codes, uint64 (n, ceil(bits / 64)).
        bits: length of a code.

    Returns:
        `bit_imbalance`: mean over the bits of |mean of the bit|; 0 if each bit is +1 for half of
        the codes, 1 if all bits are constant.
        `bit_correlation`: mean |correlation| of two bits, over the pairs in which both vary; 0 if
        there is no such pair.
        `constant_bits`: number of bits that have one value in all codes.
        `distinct_codes`: number of different codes.
        `distinct_codes_share`: that number divided by n.

    Raises:
        ValueError: words do not match the number of bits, or there are none.

    Example:
        >>> from deephash.hamming.codes import pack
        >>> words = pack(np.array([[1, 1, 1], [1, -1, 1], [-1, 1, 1], [-1, -1, 1]]))
        >>> health = code_health(words, bits=3)  # the third bit is constant
        >>> health["constant_bits"], health["bit_correlation"], health["distinct_codes"]
        (1.0, 0.0, 4.0)
    """
    n = len(words)
    if not n:
        raise ValueError("there are no codes to measure: give at least one")
    sums, products = np.zeros(bits), np.zeros((bits, bits))
    for start in range(0, n, CODES_PER_CHUNK):
        codes = unpack(words[start : start + CODES_PER_CHUNK], bits).astype(np.float32)
        sums += codes.sum(axis=0)
        products += codes.T @ codes
    means = sums / n
    varies = np.abs(sums) < n
    deviation = np.sqrt(1 - means[varies] ** 2)
    covariance = products / n - np.outer(means, means)
    correlation = covariance[np.ix_(varies, varies)] / np.outer(deviation, deviation)
    pairs = np.abs(correlation[~np.eye(len(deviation), dtype=bool)])
    ascending = words[np.lexsort(words.T)]
    distinct = 1 + np.count_nonzero((ascending[1:] != ascending[:-1]).any(axis=1))
    return {
        "bit_imbalance": float(np.abs(means).mean()),
        "bit_correlation": float(pairs.mean()) if len(pairs) else 0.0,
        "constant_bits": float(np.count_nonzero(~varies)),
        "distinct_codes": float(distinct),
        "distinct_codes_share": distinct / n,
    }
