"""Figures of merit of a Hamming ranking, exact where items tie, and the health of the codes.

Hamming distances are small whole numbers, so a ranking is mostly ties, and its average precision
depends on their order. The figures here are expectations over all orders of the ties, in closed
form (McSherry and Najork 2008, "Computing information retrieval performance measures efficiently
in the presence of tied scores"), with the best and the worst order beside them.

The functions of single figures take two histograms, `items` and `relevant`, (q, bits + 1) each,
from `deephash.hamming.distance_histogram`, and return float64 (q,). `k` is a rank, at most the
number of items; None stands for the whole ranking.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from deephash.codes import pack, sign, unpack
from deephash.hamming import database_order_histogram, distance_histogram

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """What `evaluate_ranking` found.

    Attributes:
        scalars: means over the queries that have a relevant item, and the number of the others.
        precision: mean precision within each Hamming radius 0 to bits, float64 (bits + 1,); an
            empty ball counts as 0. With `recall` it is the field's hash-lookup curve: every
            point is a radius one can search, nothing is interpolated, and ties do not matter.
        recall: mean recall within each radius, float64 (bits + 1,).
    """

    scalars: dict[str, float]
    precision: Floats
    recall: Floats


def evaluate_ranking(
    query_words: npt.NDArray[Any] | Tensor,
    query_labels: npt.NDArray[Any] | Tensor,
    database_words: npt.NDArray[Any] | Tensor,
    database_labels: npt.NDArray[Any] | Tensor,
    bits: int,
    *,
    ks: Sequence[int],
    radius: int,
    database_order: bool = False,
) -> Ranking:
    """Rank the database for each query by Hamming distance and measure the rankings.

    The scalars are `map`, `map_best`, `map_worst`; for each k `map@k`, `map_retrieved@k`,
    `precision@k` and `recall@k`; for the radius r `precision_radius{r}`, `recall_radius{r}` and
    `empty_balls_radius{r}`; and `queries_without_relevant`, a count. With `database_order` also
    `map_database_order` and, for each k, both cut at it: only for comparison with published
    tables, since it says as much about the order of the files as about the codes.

    Args:
        query_words: packed codes, (q, ceil(bits / 64)), see `deephash.codes.pack`.
        query_labels: class indices (q,) or multi-hot (q, c).
        database_words: packed codes, (n, ceil(bits / 64)).
        database_labels: class indices (n,) or multi-hot (n, c).
        bits: length of a code.
        ks: ranks to cut the ranking at, each at most n.
        radius: Hamming radius of the balls, 0 to bits.
        database_order: rank with ties in database order as well, on the CPU.

    Returns:
        the scalars and the precision-recall curve; NaN where no query has a relevant item.

    Raises:
        ValueError: a shape does not fit, queries or database are empty, or a rank or the radius
            is out of range.
    """
    if not len(query_words) or not len(database_words):
        raise ValueError(
            f"there are {len(query_words)} queries and {len(database_words)} database items: "
            "a ranking needs at least one of each"
        )
    if not 0 <= radius <= bits:
        raise ValueError(f"radius is {radius}: codes of {bits} bits have radii from 0 to {bits}")
    size = len(database_words)
    cutoffs = sorted({*ks, size})
    if not 1 <= cutoffs[0] <= cutoffs[-1] <= size:
        raise ValueError(f"ks are {list(ks)}: give ranks from 1 to the {size} database items")
    pairs = (query_words, query_labels, database_words, database_labels, bits)
    if database_order:
        items, relevant, sums, hits = database_order_histogram(*pairs, cutoffs=cutoffs)
    else:
        items, relevant = distance_histogram(*pairs)
    total = relevant.sum(axis=1)
    precision, recall = precision_by_radius(items, relevant), recall_by_radius(relevant)
    values = {
        "map": average_precision(items, relevant),
        "map_best": average_precision_best(items, relevant),
        "map_worst": average_precision_worst(items, relevant),
        f"precision_radius{radius}": precision[:, radius],
        f"recall_radius{radius}": recall[:, radius],
        f"empty_balls_radius{radius}": items[:, : radius + 1].sum(axis=1) == 0,
    }
    for k in ks:
        values |= {
            f"map@{k}": average_precision(items, relevant, k),
            f"map_retrieved@{k}": average_precision_retrieved(items, relevant, k),
            f"precision@{k}": precision_at(items, relevant, k),
            f"recall@{k}": recall_at(items, relevant, k),
        }
    if database_order:
        values["map_database_order"] = _ratio(sums[:, -1], total)
        for k in ks:
            column = cutoffs.index(k)
            some, count = sums[:, column], hits[:, column]
            values[f"map_database_order@{k}"] = _ratio(some, np.minimum(k, total))
            values[f"map_retrieved_database_order@{k}"] = some / np.maximum(1, count)
    judged = total > 0
    scalars = {name: float(_mean(value[judged])) for name, value in values.items()}
    scalars["queries_without_relevant"] = float(np.count_nonzero(~judged))
    return Ranking(scalars, _mean(precision[judged]), _mean(recall[judged]))


def average_precision(items: Counts, relevant: Counts, k: int | None = None) -> Floats:
    """Expected average precision over all orders of the ties.

    Cut at k, the denominator is min(k, number of relevant items). NaN without relevant items.
    """
    before, relevant_before, taken = _buckets(items, relevant, k)
    gains = _expected_gain(before, relevant_before, items, relevant, taken)
    return _ratio(gains.sum(axis=1), _reachable(relevant, k))


def average_precision_best(items: Counts, relevant: Counts, k: int | None = None) -> Floats:
    """Average precision with the relevant items first among equals; see `average_precision`."""
    before, relevant_before, taken = _buckets(items, relevant, k)
    gains = _run_gain(before, relevant_before, np.minimum(relevant, taken))
    return _ratio(gains.sum(axis=1), _reachable(relevant, k))


def average_precision_worst(items: Counts, relevant: Counts, k: int | None = None) -> Floats:
    """Average precision with the relevant items last among equals; see `average_precision`."""
    before, relevant_before, taken = _buckets(items, relevant, k)
    others = items - relevant
    gains = _run_gain(before + others, relevant_before, np.maximum(0, taken - others))
    return _ratio(gains.sum(axis=1), _reachable(relevant, k))


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
    log_factorial = torch.lgamma(torch.arange(1, n.max() + 2, dtype=torch.float64)).numpy()

    def log_choose(total: Counts, part: Counts) -> Floats:
        return log_factorial[total] - log_factorial[part] - log_factorial[total - part]

    weight = np.exp(log_choose(r, sent) + log_choose(n - r, m - sent) - log_choose(n, m))
    ahead = relevant_before[rows, last][row]
    gain = gain_before[row] + _expected_gain(before[rows, last][row], ahead, m, sent, m)
    value = weight * gain / np.maximum(1, ahead + sent)
    # Dividing by the sum of the weights takes the rounding of the logarithms out.
    mean = np.bincount(row, value, len(rows)) / np.bincount(row, weight, len(rows))
    return np.where(relevant.sum(axis=1) > 0, mean, np.nan)


def precision_at(items: Counts, relevant: Counts, k: int) -> Floats:
    """Expected share of relevant items among the first k."""
    return _hits(items, relevant, k) / k


def recall_at(items: Counts, relevant: Counts, k: int) -> Floats:
    """Expected share of the relevant items that is among the first k; NaN where there is none."""
    return _ratio(_hits(items, relevant, k), relevant.sum(axis=1))


def precision_by_radius(items: Counts, relevant: Counts) -> Floats:
    """Precision within each Hamming radius, (q, bits + 1); 0 where the ball is empty."""
    return relevant.cumsum(axis=1) / np.maximum(1, items.cumsum(axis=1))


def recall_by_radius(relevant: Counts) -> Floats:
    """Recall within each Hamming radius, (q, bits + 1); NaN without relevant items."""
    return _ratio(relevant.cumsum(axis=1), relevant.sum(axis=1, keepdims=True))


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
    distinct = len(np.unique(words, axis=0))
    return {
        "bit_imbalance": float(np.abs(means).mean()),
        "bit_correlation": float(pairs.mean()) if len(pairs) else 0.0,
        "constant_bits": float(np.count_nonzero(~varies)),
        "distinct_codes": float(distinct),
        "distinct_codes_share": distinct / len(codes),
    }


class HammingRanking(Metric):
    """`evaluate_ranking` and the database's `code_health`, from batches and over processes.

    Only packed codes and labels are kept and gathered. A sampler must not pad: an item that two
    processes saw counts twice. Each process needs one update of each role, of no rows where it has
    none.

    Args:
        bits: length of a code.
        ks: ranks to cut the ranking at.
        radius: Hamming radius of the balls.
        kwargs: see `torchmetrics.Metric`.
    """

    full_state_update = False
    query_words: list[Tensor]
    query_labels: list[Tensor]
    database_words: list[Tensor]
    database_labels: list[Tensor]

    def __init__(self, *, bits: int, ks: Sequence[int] = (), radius: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.bits, self.ks, self.radius = bits, tuple(ks), radius
        for state in ("query_words", "query_labels", "database_words", "database_labels"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor, role: Literal["query", "database"]) -> None:
        """Add a batch.

        Args:
            logits: logits or codes, (n, bits); the sign is taken.
            labels: class indices (n,) or multi-hot (n, c).
            role: which side of the ranking the batch is on.

        Raises:
            ValueError: logits are not (n, bits) or NaN, labels have another length, or the role
                is unknown.
        """
        if role not in ("query", "database"):
            raise ValueError(f"role is {role!r}: give 'query' or 'database'")
        if logits.shape != (len(labels), self.bits):
            raise ValueError(
                f"{role} logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}: "
                f"give (n, {self.bits}) logits and as many labels"
            )
        words = torch.from_numpy(pack(sign(logits)).view(np.int64))  # collectives lack uint64
        getattr(self, f"{role}_words").append(words.to(logits.device))
        getattr(self, f"{role}_labels").append(labels)

    def compute(self) -> dict[str, float]:
        """The scalars of `evaluate_ranking` and `code_health` over all batches."""
        if not len(self.query_words) or not len(self.database_words):  # lists, or gathered tensors
            raise ValueError("update once with role 'query' and once with 'database' beforehand")
        query_words, query_labels, database_words, database_labels = (
            dim_zero_cat(state)
            for state in (
                self.query_words,
                self.query_labels,
                self.database_words,
                self.database_labels,
            )
        )
        ranking = evaluate_ranking(
            query_words,
            query_labels,
            database_words,
            database_labels,
            self.bits,
            ks=self.ks,
            radius=self.radius,
        )
        return ranking.scalars | code_health(
            database_words.cpu().numpy().view(np.uint64), self.bits
        )


def _buckets(items: Counts, relevant: Counts, k: int | None) -> tuple[Counts, Counts, Counts]:
    """Items and relevant items before each distance, and items taken from it up to rank k."""
    before = items.cumsum(axis=1) - items
    relevant_before = relevant.cumsum(axis=1) - relevant
    if k is None:
        return before, relevant_before, items
    size = items.sum(axis=1).min()
    if not 1 <= k <= size:
        raise ValueError(f"k is {k}: give a rank from 1 to the {size} items of the database")
    return before, relevant_before, np.clip(k - before, 0, items)


def _expected_gain(
    before: Counts, relevant_before: Counts, items: Counts, relevant: Counts, taken: Counts
) -> Floats:
    """Expected sum of the precisions at the relevant ranks among the first `taken` of a bucket."""
    share = (relevant - 1) / np.maximum(1, items - 1)  # relevant among the others of the bucket
    share = np.where(items > 1, share, 0.0)
    slope = relevant_before + 1 - share * (before + 1)
    bracket = share * taken + slope * _harmonic(before, taken)
    return relevant / np.maximum(1, items) * bracket


def _run_gain(before: Counts, relevant_before: Counts, run: Counts) -> Floats:
    """Sum of the precisions at `run` relevant items in a row after `before` items."""
    return run + (relevant_before - before) * _harmonic(before, run)


def _harmonic(before: Counts, count: Counts) -> Floats:
    """Sum of 1 / rank over the `count` ranks that follow `before`."""
    last = int((before + count).max(initial=0))
    sums = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, last + 1))])
    return sums[before + count] - sums[before]


def _hits(items: Counts, relevant: Counts, k: int) -> Floats:
    taken = _buckets(items, relevant, k)[2]
    return (taken * relevant / np.maximum(1, items)).sum(axis=1)


def _reachable(relevant: Counts, k: int | None) -> Counts:
    total = relevant.sum(axis=1)
    return total if k is None else np.minimum(k, total)


def _ratio(part: Counts | Floats, whole: Counts) -> Floats:
    """Part / whole, NaN where the whole is 0."""
    return np.where(whole > 0, part / np.maximum(1, whole), np.nan)


def _mean(values: npt.NDArray[Any]) -> Any:
    """Mean over the queries, NaN where there is none."""
    return values.mean(axis=0) if len(values) else np.full(values.shape[1:], np.nan)
