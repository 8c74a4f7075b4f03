"""Evaluation of rankings by Hamming distance."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deephash.hamming import (
    GradedHistogram,
    database_order_histogram,
    distance_histogram,
    graded_histogram,
)
from deephash.hamming.codes import as_int
from deephash.metrics.average_precision import (
    Counts,
    Floats,
    average_precision,
    average_precision_best,
    average_precision_retrieved,
    average_precision_worst,
    ndcg,
    precision_at,
    precision_by_radius,
    ratio,
    recall_at,
    recall_by_radius,
    weighted_average_precision,
)

QUERIES_PER_CHUNK = 1000  # few enough for their histograms to stay in the processor's cache


@dataclass(frozen=True)
class Ranking:
    """The metrics of a ranking, as returned by `evaluate_codes`.

    Attributes:
        scalars: means over the queries that have a relevant item, and the number of the others.
        precision: mean precision within each Hamming radius 0 to bits, float64 (bits + 1,); 0
            within a radius without items. Precision and recall together are the hash-lookup curve:
            every point is a radius that can be searched, nothing is interpolated, and ties do not
            matter.
        recall: mean recall within each Hamming radius 0 to bits, float64 (bits + 1,).
    """

    scalars: dict[str, float]
    precision: Floats
    recall: Floats


def evaluate_codes(
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
    `empty_balls_radius{r}`, the fraction of queries without an item within the radius; and
    `queries_without_relevant`, a count. With `database_order` also `map_database_order` and, for
    each k, `map_database_order@k` and `map_retrieved_database_order@k`. These are only for
    comparison with published tables, since they depend on the order of the database as much as on
    the codes.

    Items that share a label with the query are relevant. With multi-hot labels, the number of
    shared labels is the grade of an item, and there are also `ndcg` and `weighted_map` and, for
    each k, `ndcg@k` and `weighted_map@k`. `deephash.metrics.average_precision` has the formulas and
    their sources.

    Args:
        query_words: packed codes, (q, ceil(bits / 64)), see `deephash.hamming.codes.pack`.
        query_labels: class indices (q,) or multi-hot (q, c).
        database_words: packed codes, (n, ceil(bits / 64)).
        database_labels: class indices (n,) or multi-hot (n, c).
        bits: length of a code.
        ks: ranks to cut the ranking at, each at most n.
        radius: Hamming radius of the balls, 0 to bits.
        database_order: also rank with ties in database order, on the CPU.

    Returns:
        the scalars and the precision-recall curve; NaN if no query has a relevant item.

    Raises:
        ValueError: a shape does not fit, queries or database are empty, a rank or the radius is
            out of range, or a query has more than 960 labels.

    Example:
        >>> from deephash.hamming.codes import pack
        >>> query, label = pack(np.array([[1, 1]])), np.array([0])
        >>> database, labels = pack(np.array([[1, 1], [1, -1], [-1, 1]])), np.array([0, 0, 1])
        >>> ranking = evaluate_codes(query, label, database, labels, bits=2, ks=[1], radius=1)
        >>> round(ranking.scalars["map"], 4), ranking.scalars["map@1"]  # the last two items tie
        (0.9167, 1.0)
    """
    if not len(query_words) or not len(database_words):
        raise ValueError(
            f"there are {len(query_words)} queries and {len(database_words)} database items: "
            "a ranking needs at least one of each"
        )
    bits, ks = as_int(bits, "bits"), [as_int(k, "k") for k in ks]
    radius = as_int(radius, "radius")
    check_radius(radius, bits)
    size = len(database_words)
    cutoffs = sorted({*ks, size})
    if not 1 <= cutoffs[0] <= cutoffs[-1] <= size:
        raise ValueError(f"ks are {list(ks)}: give ranks from 1 to the {size} database items")
    pairs = (query_words, query_labels, database_words, database_labels, bits)
    if database_order:
        items, relevant, sums, hits = database_order_histogram(*pairs, cutoffs=cutoffs)
    graded = graded_histogram(*pairs) if query_labels.ndim == 2 else None
    if graded is not None:
        items, relevant = graded.items, graded.relevant
    elif not database_order:
        items, relevant = distance_histogram(*pairs)
    total = relevant.sum(axis=1)

    def compute_metrics(rows: slice) -> dict[str, Floats]:
        values = _binary_metrics(items[rows], relevant[rows], ks, radius)
        if graded is not None:
            values |= _graded_metrics(GradedHistogram._make(part[rows] for part in graded), ks)
        return values

    starts = range(0, len(items), QUERIES_PER_CHUNK)
    chunks = [slice(start, start + QUERIES_PER_CHUNK) for start in starts]
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # numpy releases the GIL
        results = list(threads.map(compute_metrics, chunks))
    values = {name: np.concatenate([result[name] for result in results]) for name in results[0]}
    precision, recall = values.pop("precision"), values.pop("recall")
    if database_order:
        values["map_database_order"] = ratio(sums[:, -1], total)
        for k in ks:
            column = cutoffs.index(k)
            values[f"map_database_order@{k}"] = ratio(sums[:, column], np.minimum(k, total))
            values[f"map_retrieved_database_order@{k}"] = sums[:, column] / np.maximum(
                1, hits[:, column]
            )
    has_relevant = total > 0
    scalars = {name: float(_mean(value[has_relevant])) for name, value in values.items()}
    scalars["queries_without_relevant"] = float(np.count_nonzero(~has_relevant))
    return Ranking(scalars, _mean(precision[has_relevant]), _mean(recall[has_relevant]))


def _binary_metrics(
    items: Counts, relevant: Counts, ks: Sequence[int], radius: int
) -> dict[str, Floats]:
    """Compute the metrics of each query (q,), and precision and recall by radius (q, bits + 1)."""
    precision, recall = precision_by_radius(items, relevant), recall_by_radius(relevant)
    values = {
        "precision": precision,
        "recall": recall,
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
    return values


def _graded_metrics(histogram: GradedHistogram, ks: Sequence[int]) -> dict[str, Floats]:
    """Compute the metrics of each query (q,) that use the grades."""
    items, relevant, grades, gains, by_grade = histogram
    values = {
        "ndcg": ndcg(items, gains, by_grade),
        "weighted_map": weighted_average_precision(items, relevant, grades),
    }
    for k in ks:
        values[f"ndcg@{k}"] = ndcg(items, gains, by_grade, k)
        values[f"weighted_map@{k}"] = weighted_average_precision(items, relevant, grades, k)
    return values


def check_radius(radius: int, bits: int) -> None:
    """Check that the radius of a Hamming ball is between 0 and the length of a code."""
    if not 0 <= radius <= bits:
        raise ValueError(f"radius is {radius}: codes of {bits} bits have radii from 0 to {bits}")


def _mean(values: npt.NDArray[Any]) -> Any:
    """Mean over the queries; NaN if there are none."""
    return values.mean(axis=0) if len(values) else np.full(values.shape[1:], np.nan)
