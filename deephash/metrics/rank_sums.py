"""Sums over the ranks of a ranking, from tables for low ranks and from series for high ones.

Their memory does not grow with the database. The relative error is below 1e-12.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TABLE_SIZE = 2**16  # ranks whose sums are looked up


def harmonic_numbers(ranks: Counts) -> Floats:
    """The harmonic number of each rank: the sum of 1 / i for i from 1 to the rank."""

    def series(n: Floats) -> Floats:  # the next term is below 1e-21
        return np.log(n) + np.euler_gamma + 1 / (2 * n) - 1 / (12 * n**2)

    return _sums_to_ranks(ranks, _harmonic_table(), series)


def cumulative_discounts(ranks: Counts) -> Floats:
    """The sum of 1 / log2(1 + i) for i from 1 to each rank."""
    table = _discount_table()

    def series(n: Floats) -> Floats:
        # The Euler-Maclaurin formula, from the table's end. The antiderivative of 1 / log(x) is the
        # logarithmic integral.
        x = np.append(n, TABLE_SIZE - 1) + 1
        log = np.log(x)
        sums = _logarithmic_integral(log) + 1 / (2 * log) - 1 / (12 * x * log**2)
        return table[-1] + np.log(2) * (sums[:-1] - sums[-1])

    return _sums_to_ranks(ranks, table, series)


def _sums_to_ranks(ranks: Counts, table: Floats, series: Callable[[Floats], Floats]) -> Floats:
    """Look up the sums of ranks in the table, and compute those of ranks beyond it."""
    sums = table[np.minimum(ranks, TABLE_SIZE - 1)]
    beyond = ranks >= TABLE_SIZE
    sums[beyond] = series(ranks[beyond].astype(float))
    return sums


def _logarithmic_integral(log: Floats) -> Floats:
    """li(x), from log(x) > 0, by its series of positive terms log(x)^k / (k * k!)."""
    total = np.euler_gamma + np.log(log)
    power = np.ones_like(log)
    for k in range(1, 40 + int(4 * log.max())):  # the terms left out are below 1e-17 of the sum
        power *= log / k
        total += power / k
    return total


@lru_cache(maxsize=1)
def _harmonic_table() -> Floats:
    """The harmonic numbers of the ranks below TABLE_SIZE."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, TABLE_SIZE))])


@lru_cache(maxsize=1)
def _discount_table() -> Floats:
    """The sums of 1 / log2(1 + i) for i up to each rank below TABLE_SIZE."""
    return np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, TABLE_SIZE + 1)))])
