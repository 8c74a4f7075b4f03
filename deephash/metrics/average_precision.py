"""Figures of merit of Hamming rankings, exact where items tie, and the health of the codes.

Hamming distances are small whole numbers, so a ranking is mostly ties, and its average precision
depends on their order. The figures here are expectations over all orders of the ties, in closed
form (McSherry and Najork 2008, "Computing information retrieval performance measures efficiently
in the presence of tied scores"), with the best and the worst order beside them.

The figures of a ranking take two histograms, `items` and `relevant`, (q, bits + 1) each,
from `deephash.hamming.distance_histogram`, and return float64 (q,). `k` is a rank, at most the
number of items; None stands for the whole ranking. Figures of graded relevance, where the grade
of an item is the number of labels that it shares with the query, take those of
`deephash.hamming.graded_histogram`.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from deephash.hamming import gain_by_grade

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def average_precision(items: Counts, relevant: Counts, k: int | None = None) -> Floats:
    """Expected average precision over all orders of the ties.

    Cut at k, the denominator is min(k, number of relevant items). NaN without relevant items.
    """
    before, relevant_before, taken = _buckets(items, relevant, k)
    gains = _expected_gain(before, relevant_before, items, relevant, taken)
    return ratio(gains.sum(axis=1), _reachable(relevant, k))


def average_precision_best(items: Counts, relevant: Counts, k: int | None = None) -> Floats:
    """Average precision with the relevant items first among equals; see `average_precision`."""
    before, relevant_before, taken = _buckets(items, relevant, k)
    gains = _run_gain(before, relevant_before, np.minimum(relevant, taken))
    return ratio(gains.sum(axis=1), _reachable(relevant, k))


def average_precision_worst(items: Counts, relevant: Counts, k: int | None = None) -> Floats:
    """Average precision with the relevant items last among equals; see `average_precision`."""
    before, relevant_before, taken = _buckets(items, relevant, k)
    others = items - relevant
    gains = _run_gain(before + others, relevant_before, np.maximum(0, taken - others))
    return ratio(gains.sum(axis=1), _reachable(relevant, k))


def average_precision_retrieved(items: Counts, relevant: Counts, k: int) -> Floats:
    """Expected average precision of the first k, over the relevant items among these k alone.

    Many papers call this mAP@k, though it does not fall when relevant items are missed. The
    number of relevant items that the bucket holding rank k sends into the first k is
    hypergeometric; an order that sends none has average precision 0. NaN without relevant items.
    """
    before, relevant_before, taken = _buckets(items, relevant, k)
    gains = _expected_gain(before, relevant_before, items, relevant, taken)
    rows = np.arange(len(items))
    last = (before + items >= k).argmax(axis=1)  # the bucket that holds rank k
    gain_before = gains.cumsum(axis=1)[rows, last] - gains[rows, last]
    n, r, m = items[rows, last], relevant[rows, last], taken[rows, last]

    # One entry for each query and each number of relevant items its cut bucket may send. Numbers
    # further than 5 sqrt(m) from the mean are left out: by Hoeffding they weigh under 1e-21.
    reach = np.ceil(5 * np.sqrt(m)).astype(np.int64)
    centre = m * r // n
    low = np.maximum(np.maximum(0, m - (n - r)), centre - reach)
    high = np.minimum(np.minimum(m, r), centre + 1 + reach)
    row = np.repeat(rows, high - low + 1)
    sent = np.arange(len(row)) - np.repeat(np.cumsum(high - low + 1) - (high + 1), high - low + 1)
    n, r, m = n[row], r[row], m[row]
    log_factorial = _log_factorials(_rounded_up(n))

    def log_choose(total: Counts, part: Counts) -> Floats:
        return log_factorial[total] - log_factorial[part] - log_factorial[total - part]

    weight = np.exp(log_choose(r, sent) + log_choose(n - r, m - sent) - log_choose(n, m))
    ahead = relevant_before[rows, last][row]
    gain = gain_before[row] + _expected_gain(before[rows, last][row], ahead, m, sent, m)
    value = weight * gain / np.maximum(1, ahead + sent)
    # Dividing by the sum of the weights takes the rounding of the logarithms out.
    mean = np.bincount(row, value, len(rows)) / np.bincount(row, weight, len(rows))
    return np.where(relevant.sum(axis=1) > 0, mean, np.nan)


def ndcg(items: Counts, gains: Floats, by_grade: Counts, k: int | None = None) -> Floats:
    """Expected normalised discounted cumulative gain of the first k.

    The gain is 2^grade - 1, the discount 1 / log2(1 + rank) (Burges et al. 2005, "Learning to rank
    using gradient descent"). The ideal order is the database by descending grade. NaN without
    relevant items.
    """
    ideal = by_grade[:, ::-1]
    ideal_gains = ideal * gain_by_grade(by_grade.shape[1] - 1)[::-1]
    return ratio(_discounted_gain(items, gains, k), _discounted_gain(ideal, ideal_gains, k))


def weighted_average_precision(
    items: Counts, relevant: Counts, grades: Counts, k: int | None = None
) -> Floats:
    """Expected mean, over the relevant ranks, of the average grade up to the rank.

    WAP of Zhao, Huang, Wang and Tan 2015, "Deep semantic ranking based hashing for multi-label
    image retrieval", where the average grade is ACG. With grades 0 and 1 it is the average
    precision, and cut at k, the denominator is as there. NaN without relevant items.
    """
    before, grades_before, taken = _buckets(items, grades, k)
    size = np.maximum(1, items)
    # Relevant among the others of the bucket, as in `_expected_gain`.
    share = (relevant - 1) / np.maximum(1, items - 1)
    harmonic = _harmonic(before, taken)
    # Up to a relevant rank lie nearer items, the one there, and those tied that come before it.
    nearer_and_own = (relevant / size * grades_before + grades / size) * harmonic
    tied = grades / size * share * (taken - (before + 1) * harmonic)
    return ratio((nearer_and_own + tied).sum(axis=1), _reachable(relevant, k))


def precision_at(items: Counts, relevant: Counts, k: int) -> Floats:
    """Expected share of relevant items among the first k."""
    return _hits(items, relevant, k) / k


def recall_at(items: Counts, relevant: Counts, k: int) -> Floats:
    """Expected share of the relevant items that is among the first k; NaN where there is none."""
    return ratio(_hits(items, relevant, k), relevant.sum(axis=1))


def precision_by_radius(items: Counts, relevant: Counts) -> Floats:
    """Precision within each Hamming radius, (q, bits + 1); 0 where the ball is empty."""
    return relevant.cumsum(axis=1) / np.maximum(1, items.cumsum(axis=1))


def recall_by_radius(relevant: Counts) -> Floats:
    """Recall within each Hamming radius, (q, bits + 1); NaN without relevant items."""
    return ratio(relevant.cumsum(axis=1), relevant.sum(axis=1, keepdims=True))


def _buckets(items: Counts, relevant: Counts, k: int | None) -> tuple[Counts, Counts, Counts]:
    """Items and relevant items before each distance, and items taken from it up to rank k.

    In place of the relevant items their grades will do.
    """
    before, taken = _ranks(items, k)
    return before, relevant.cumsum(axis=1) - relevant, taken


def _ranks(items: Counts, k: int | None) -> tuple[Counts, Counts]:
    """Items before each bucket, and items taken from it up to rank k."""
    before = items.cumsum(axis=1) - items
    if k is None:
        return before, items
    size = items.sum(axis=1).min()
    if not 1 <= k <= size:
        raise ValueError(f"k is {k}: give a rank from 1 to the {size} items of the database")
    return before, np.clip(k - before, 0, items)


def _expected_gain(
    before: Counts, relevant_before: Counts, items: Counts, relevant: Counts, taken: Counts
) -> Floats:
    """Expected sum of the precisions at the relevant ranks among the first `taken` of a bucket."""
    # Relevant among the others of the bucket; where it holds no others, nothing depends on it.
    share = (relevant - 1) / np.maximum(1, items - 1)
    slope = relevant_before + 1 - share * (before + 1)
    bracket = share * taken + slope * _harmonic(before, taken)
    return relevant / np.maximum(1, items) * bracket


def _run_gain(before: Counts, relevant_before: Counts, run: Counts) -> Floats:
    """Sum of the precisions at `run` relevant items in a row after `before` items."""
    return run + (relevant_before - before) * _harmonic(before, run)


def _discounted_gain(items: Counts, gains: Floats, k: int | None) -> Floats:
    """Expected discounted gain of the first k: at each rank the mean gain of its bucket."""
    before, taken = _ranks(items, k)
    discounts = _over_ranks(_discount_sums, before, taken)
    return (gains / np.maximum(1, items) * discounts).sum(axis=1)


def _harmonic(before: Counts, count: Counts) -> Floats:
    """Sum of 1 / rank over the `count` ranks that follow `before`."""
    return _over_ranks(_harmonic_numbers, before, count)


def _over_ranks(sums_to: Callable[[int], Floats], before: Counts, count: Counts) -> Floats:
    """Sum over the `count` ranks that follow `before`, from a table of the sums up to each rank."""
    after = before + count
    sums = sums_to(_rounded_up(after))
    return sums[after] - sums[before]


def _rounded_up(values: Counts) -> int:
    """A power of two above all values, so that one table serves many calls."""
    return 1 << int(values.max(initial=0)).bit_length()


@lru_cache(maxsize=4)
def _harmonic_numbers(last: int) -> Floats:
    """H_0 to H_last."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, last + 1))])


@lru_cache(maxsize=4)
def _discount_sums(last: int) -> Floats:
    """Sums of 1 / log2(1 + rank) up to each of the ranks 0 to last."""
    return np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, last + 2)))])


@lru_cache(maxsize=4)
def _log_factorials(last: int) -> Floats:
    """The logarithms of 0! to last!."""
    return torch.lgamma(torch.arange(1, last + 2, dtype=torch.float64)).numpy()


def _hits(items: Counts, relevant: Counts, k: int) -> Floats:
    taken = _ranks(items, k)[1]
    return (taken * relevant / np.maximum(1, items)).sum(axis=1)


def _reachable(relevant: Counts, k: int | None) -> Counts:
    total = relevant.sum(axis=1)
    return total if k is None else np.minimum(k, total)


def ratio(part: Counts | Floats, whole: Counts | Floats) -> Floats:
    """Part / whole, NaN where the whole is 0; a whole is 0 or at least 1."""
    return np.where(whole > 0, part / np.maximum(1, whole), np.nan)
