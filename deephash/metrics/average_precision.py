"""Metrics of Hamming rankings, exact when items tie.

Hamming distances are small integers, so a ranking consists mostly of ties, and its average
precision depends on their order. The metrics here are expectations over all orders of the ties, in
closed form (McSherry and Najork 2008, "Computing information retrieval performance measures
efficiently in the presence of tied scores"). For average precision there are also its values in the
best and in the worst order.

The functions take the histograms `items` and `relevant`, int64 (q, bits + 1) each, from
`deephash.hamming.distance_histogram`. For graded relevance, where the grade of an item is the
number of labels that it shares with the query, they take fields of
`deephash.hamming.GradedHistogram`. Each function returns one value per query, float64 (q,), unless
it says otherwise. `k` is a rank from 1 to the number of items; None stands for the whole ranking.

The examples have one query and three items: a relevant one at distance 0, and at distance 1 a
relevant and an irrelevant one.
"""

import numpy as np
import numpy.typing as npt
import torch

from deephash.hamming import gain_by_grade
from deephash.metrics.rank_sums import cumulative_discounts, harmonic_numbers

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def average_precision(items: Counts, relevant: Counts, k: int | None = None) -> Floats:
    """Expected average precision over all orders of the ties.

    With k, the denominator is min(k, number of relevant items). NaN without relevant items.

    Example:
        >>> average_precision(np.array([[1, 2]]), np.array([[1, 1]])).round(4)  # (1 + 5/6) / 2
        array([0.9167])
    """
    before, taken = _split_at_rank(items, k)
    sums = _expected_precision_sum(before, _cumsum_before(relevant), items, relevant, taken)
    return ratio(sums.sum(axis=1), _max_hits(relevant, k))


def average_precision_best(items: Counts, relevant: Counts, k: int | None = None) -> Floats:
    """`average_precision` with the relevant items first among ties.

    Example:
        >>> average_precision_best(np.array([[1, 2]]), np.array([[1, 1]]))
        array([1.])
    """
    before, taken = _split_at_rank(items, k)
    sums = _precision_sum_of_run(before, _cumsum_before(relevant), np.minimum(relevant, taken))
    return ratio(sums.sum(axis=1), _max_hits(relevant, k))


def average_precision_worst(items: Counts, relevant: Counts, k: int | None = None) -> Floats:
    """`average_precision` with the relevant items last among ties.

    Example:
        >>> average_precision_worst(np.array([[1, 2]]), np.array([[1, 1]])).round(3)  # (1+2/3) / 2
        array([0.833])
    """
    before, taken = _split_at_rank(items, k)
    others = items - relevant
    run = np.maximum(0, taken - others)
    sums = _precision_sum_of_run(before + others, _cumsum_before(relevant), run)
    return ratio(sums.sum(axis=1), _max_hits(relevant, k))


def average_precision_retrieved(items: Counts, relevant: Counts, k: int) -> Floats:
    """Expected average precision of the first k, divided by the relevant items among them.

    Many papers call this mAP@k, though it does not fall when relevant items are missed. If ties
    extend across rank k, the number of relevant items among the tied ones that are within the first
    k is hypergeometric. An order without a relevant item in the first k has average precision 0.
    NaN without relevant items.

    Example:
        >>> average_precision_retrieved(np.array([[1, 2]]), np.array([[1, 1]]), k=2).round(4)
        array([1.])
        >>> average_precision(np.array([[1, 2]]), np.array([[1, 1]]), k=2)  # divided by 2
        array([0.75])
    """
    before, taken = _split_at_rank(items, k)
    relevant_before = _cumsum_before(relevant)
    sums = _expected_precision_sum(before, relevant_before, items, relevant, taken)
    rows = np.arange(len(items))
    cut = (before + items >= k).argmax(axis=1)  # the distance at which rank k lies
    sum_before = sums.cumsum(axis=1)[rows, cut] - sums[rows, cut]
    n, r, m = items[rows, cut], relevant[rows, cut], taken[rows, cut]

    # One entry for each query and each possible number of relevant items among the m of n tied
    # items that are within the first k. Numbers that are further than 5 sqrt(m) from the mean are
    # omitted: by Hoeffding's inequality they weigh less than 1e-21.
    reach = np.ceil(5 * np.sqrt(m)).astype(np.int64)
    centre = m * r // n
    low = np.maximum(np.maximum(0, m - (n - r)), centre - reach)
    high = np.minimum(np.minimum(m, r), centre + 1 + reach)
    row = np.repeat(rows, high - low + 1)
    hits = np.arange(len(row)) - np.repeat(np.cumsum(high - low + 1) - (high + 1), high - low + 1)
    n, r, m = n[row], r[row], m[row]

    def log_choose(total: Counts, part: Counts) -> Floats:
        return _log_factorial(total) - _log_factorial(part) - _log_factorial(total - part)

    weight = np.exp(log_choose(r, hits) + log_choose(n - r, m - hits) - log_choose(n, m))
    hits_before = relevant_before[rows, cut][row]
    precision_sum = sum_before[row] + _expected_precision_sum(
        before[rows, cut][row], hits_before, m, hits, m
    )
    value = weight * precision_sum / np.maximum(1, hits_before + hits)
    # The weights sum to 1 up to the rounding of the logarithms, which this division removes.
    mean = np.bincount(row, value, len(rows)) / np.bincount(row, weight, len(rows))
    return np.where(relevant.sum(axis=1) > 0, mean, np.nan)


def ndcg(items: Counts, gains: Floats, by_grade: Counts, k: int | None = None) -> Floats:
    """Expected normalised discounted cumulative gain of the first k.

    The gain is 2^grade - 1, the discount 1 / log2(1 + rank) (Burges et al. 2005, "Learning to rank
    using gradient descent"). The ideal ranking is the database by descending grade. NaN without
    relevant items.

    Example:
        >>> gains, by_grade = np.array([[1.0, 3.0]]), np.array([[1, 1, 1]])
        >>> ndcg(np.array([[1, 2]]), gains, by_grade).round(4)  # grades 1, then 2 and 0 tied
        array([0.7426])
    """
    ideal = by_grade[:, ::-1]
    ideal_gains = ideal * gain_by_grade(by_grade.shape[1] - 1)[::-1]
    return ratio(_discounted_gain(items, gains, k), _discounted_gain(ideal, ideal_gains, k))


def weighted_average_precision(
    items: Counts, relevant: Counts, grades: Counts, k: int | None = None
) -> Floats:
    """Expected mean, over the ranks of the relevant items, of the average grade up to the rank.

    WAP of Zhao, Huang, Wang and Tan 2015, "Deep semantic ranking based hashing for multi-label
    image retrieval", where the average grade is called ACG. With grades 0 and 1 it equals the
    average precision. With k, the denominator is min(k, number of relevant items). NaN without
    relevant items.

    Example:
        >>> items, relevant, grades = np.array([[1, 2]]), np.array([[1, 1]]), np.array([[1, 2]])
        >>> weighted_average_precision(items, relevant, grades)  # orders 1 2 0: 1.25, 1 0 2: 1.0
        array([1.125])
    """
    before, taken = _split_at_rank(items, k)
    grades_before = _cumsum_before(grades)
    size = np.maximum(1, items)
    # Probability that another tied item is relevant, given a relevant one.
    other_relevant = (relevant - 1) / np.maximum(1, items - 1)
    harmonic = _harmonic_sum(before, taken)
    # Up to a relevant item's rank are the nearer items, itself, and the ties that precede it.
    nearer_and_own = (relevant / size * grades_before + grades / size) * harmonic
    tied = grades / size * other_relevant * (taken - (before + 1) * harmonic)
    return ratio((nearer_and_own + tied).sum(axis=1), _max_hits(relevant, k))


def precision_at(items: Counts, relevant: Counts, k: int) -> Floats:
    """Expected fraction of the first k items that is relevant.

    Example:
        >>> precision_at(np.array([[1, 2]]), np.array([[1, 1]]), k=2)  # 1.5 of 2
        array([0.75])
    """
    return _expected_hits(items, relevant, k) / k


def recall_at(items: Counts, relevant: Counts, k: int) -> Floats:
    """Expected fraction of the relevant items among the first k; NaN without relevant items.

    Example:
        >>> recall_at(np.array([[1, 2]]), np.array([[1, 1]]), k=1)
        array([0.5])
    """
    return ratio(_expected_hits(items, relevant, k), relevant.sum(axis=1))


def precision_by_radius(items: Counts, relevant: Counts) -> Floats:
    """Precision within each Hamming radius, (q, bits + 1); 0 within a radius without items.

    Example:
        >>> precision_by_radius(np.array([[1, 2]]), np.array([[1, 1]])).round(4)
        array([[1.    , 0.6667]])
    """
    return relevant.cumsum(axis=1) / np.maximum(1, items.cumsum(axis=1))


def recall_by_radius(relevant: Counts) -> Floats:
    """Recall within each Hamming radius, (q, bits + 1); NaN without relevant items.

    Example:
        >>> recall_by_radius(np.array([[1, 1]]))
        array([[0.5, 1. ]])
    """
    return ratio(relevant.cumsum(axis=1), relevant.sum(axis=1, keepdims=True))


def ratio(part: Counts | Floats, whole: Counts | Floats) -> Floats:
    """Divide elementwise; NaN where `whole` is 0. Other values of `whole` must be at least 1."""
    return np.where(whole > 0, part / np.maximum(1, whole), np.nan)


def _split_at_rank(items: Counts, k: int | None) -> tuple[Counts, Counts]:
    """Count the items nearer than each distance, and those at it within the first k ranks."""
    before = _cumsum_before(items)
    if k is None:
        return before, items
    size = items.sum(axis=1).min()
    if not 1 <= k <= size:
        raise ValueError(f"k is {k}: give a rank from 1 to the {size} items of the database")
    return before, np.clip(k - before, 0, items)


def _cumsum_before(values: Counts) -> Counts:
    """Sum the values at smaller distances."""
    return values.cumsum(axis=1) - values


def _expected_precision_sum(
    before: Counts, relevant_before: Counts, items: Counts, relevant: Counts, taken: Counts
) -> Floats:
    """Expected sum of the precisions at the relevant ranks among the first `taken` of tied items.

    Args:
        before: items nearer than the tied ones.
        relevant_before: relevant items nearer than the tied ones.
        items: tied items.
        relevant: relevant ones among them.
        taken: ranks among the ties to sum over.
    """
    # Probability that another tied item is relevant, given a relevant one.
    other_relevant = (relevant - 1) / np.maximum(1, items - 1)
    slope = relevant_before + 1 - other_relevant * (before + 1)
    bracket = other_relevant * taken + slope * _harmonic_sum(before, taken)
    return relevant / np.maximum(1, items) * bracket


def _precision_sum_of_run(before: Counts, relevant_before: Counts, run: Counts) -> Floats:
    """Sum the precisions at the ranks of `run` consecutive relevant items after `before` items."""
    return run + (relevant_before - before) * _harmonic_sum(before, run)


def _discounted_gain(items: Counts, gains: Floats, k: int | None) -> Floats:
    """Expected discounted gain of the first k: each rank has the mean gain of its ties."""
    before, taken = _split_at_rank(items, k)
    discounts = cumulative_discounts(before + taken) - cumulative_discounts(before)
    return (gains / np.maximum(1, items) * discounts).sum(axis=1)


def _expected_hits(items: Counts, relevant: Counts, k: int) -> Floats:
    """Expected number of relevant items among the first k."""
    taken = _split_at_rank(items, k)[1]
    return (taken * relevant / np.maximum(1, items)).sum(axis=1)


def _max_hits(relevant: Counts, k: int | None) -> Counts:
    """Number of relevant items that the first k ranks of the ideal ranking hold."""
    total = relevant.sum(axis=1)
    return total if k is None else np.minimum(k, total)


def _harmonic_sum(before: Counts, count: Counts) -> Floats:
    """Sum 1 / rank over the `count` ranks after `before`."""
    return harmonic_numbers(before + count) - harmonic_numbers(before)


def _log_factorial(values: Counts) -> Floats:
    """The logarithm of the factorial of each value."""
    return torch.lgamma(torch.from_numpy(values + 1.0)).numpy()
