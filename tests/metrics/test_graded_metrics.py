"""NDCG and weighted average precision, which use the number of shared labels as grade."""

import math

import numpy as np
import pytest
from ranking_samples import (
    KS,
    all_orders,
    codes_at,
    distances_and_relevance,
    evaluate,
    large_sample,
    tied_sample,
)
from sklearn.metrics import ndcg_score

from deephash.hamming import graded_histogram
from deephash.hamming.codes import pack
from deephash.metrics.average_precision import ndcg, weighted_average_precision


def graded_metrics_of_order(grades, k):
    """NDCG and weighted average precision of one order, cut at k, from the definitions."""

    def dcg(grades):
        return sum((2**g - 1) / math.log2(1 + rank) for rank, g in enumerate(grades[:k], 1))

    ranks = [n for n in range(1, k + 1) if grades[n - 1] > 0]
    max_hits = min(k, sum(g > 0 for g in grades))
    return {
        "ndcg": dcg(grades) / dcg(sorted(grades, reverse=True)),
        "weighted_map": sum(sum(grades[:n]) / n for n in ranks) / max_hits,
    }


def graded_sample(labels, seed, distances):
    """`codes_at` with items that share up to four labels with a query."""
    rng = np.random.default_rng(seed)
    queries, database = codes_at(distances, 12, rng)
    query_labels = np.zeros((4, labels), int)
    for row, count in zip(query_labels, [4, 2, 1, 0], strict=True):
        row[rng.permutation(labels)[:count]] = 1
    return queries, query_labels, database, (rng.random((7, labels)) < 0.5).astype(int)


def large_graded_sample(seed=0):
    """`large_sample` with eight labels, three of them on average; no query is without any."""
    queries, _, database, _ = large_sample(seed)
    rng = np.random.default_rng(seed)
    query_labels, database_labels = (
        (rng.random((len(codes), 8)) < 0.4).astype(int) for codes in (queries, database)
    )
    query_labels[:, 0] = 1
    return queries, query_labels, database, database_labels


def grades_of_pairs(data):
    return data[1] @ data[3].T


@pytest.mark.parametrize("distances", [(1, 2, 11), (5,), (0, 12)], ids=str)
@pytest.mark.parametrize("labels", [5, 70])
@pytest.mark.parametrize("seed", range(2))
def test_metrics_are_means_over_all_orders_of_the_ties(labels, seed, distances):
    data = graded_sample(labels, seed, distances)
    distance, _ = distances_and_relevance(*data)
    grades = grades_of_pairs(data)
    judged = [i for i in range(4) if grades[i].any()]
    assert 0 < len(judged) < 4, "the case must have queries with and without relevant items"
    assert grades.max() >= 2, "the case must have more than two grades"
    scalars = evaluate(data).scalars
    expected = {k: {"ndcg": [], "weighted_map": []} for k in KS}
    for i in judged:
        rankings = [grades[i, order].tolist() for order in all_orders(distance[i])]
        assert len(rankings) > 1
        for k, by_query in expected.items():
            per_order = [graded_metrics_of_order(ranked, k) for ranked in rankings]
            for name, values in by_query.items():
                values.append(math.fsum(m[name] for m in per_order) / len(rankings))
    for k, by_query in expected.items():
        for name, values in by_query.items():
            assert scalars[f"{name}@{k}"] == pytest.approx(np.mean(values), abs=1e-12), (name, k)
    for name, values in expected[7].items():
        assert scalars[name] == pytest.approx(np.mean(values), abs=1e-12), name
    assert scalars["queries_without_relevant"] == 4 - len(judged)


@pytest.mark.parametrize("k", [None, 1, 5, 12])
def test_ndcg_without_ties_equals_scikit_learns(k):
    rng = np.random.default_rng(0)
    query_labels = np.ones((1, 5), int)
    database_labels = (rng.random((12, 5)) < 0.4).astype(int)
    distance = rng.permutation(13)[:12]
    database = np.where(np.arange(13) < distance[:, None], -1, 1)
    histogram = graded_histogram(
        pack(np.ones((1, 13))), query_labels, pack(database), database_labels, 13
    )
    assert (histogram.items <= 1).all()
    value = ndcg(histogram.items, histogram.gains, histogram.by_grade, k)
    true_gains = 2.0 ** database_labels.sum(axis=1)[None] - 1
    assert value[0] == pytest.approx(ndcg_score(true_gains, -distance[None], k=k), abs=1e-12)


def test_ndcg_of_a_large_database_equals_scikit_learns_mean_over_ties():
    data, ks = large_graded_sample(), (1, 10, 100, 2000)
    distance, _ = distances_and_relevance(*data)
    gains = 2.0 ** grades_of_pairs(data) - 1
    scalars = evaluate(data, ks).scalars
    for name, k in [("ndcg", None), *((f"ndcg@{k}", k) for k in ks)]:
        assert scalars[name] == pytest.approx(ndcg_score(gains, -distance, k=k), abs=1e-12)


def test_sampled_orders_of_a_large_database_agree():
    data, ks = large_graded_sample(), (10, 100, 2000)
    distance, grades = distances_and_relevance(*data)[0], grades_of_pairs(data)
    scalars = evaluate(data, ks).scalars
    rng, ranks = np.random.default_rng(1), np.arange(1, 4001)
    samples = {f"weighted_map@{k}": [] for k in ks} | {"weighted_map": []}
    for _ in range(60):
        for i in range(30):
            ranked = grades[i, np.lexsort((rng.random(4000), distance[i]))]
            terms = (ranked > 0) * np.cumsum(ranked) / ranks
            for name, values in samples.items():
                k = int(name.partition("@")[2] or 4000)
                values.append(terms[:k].sum() / min(k, np.count_nonzero(ranked)))
    for name, values in samples.items():
        assert scalars[name] == pytest.approx(np.mean(values), rel=5e-3), name


def test_weighted_average_precision_without_ties_is_accurate_over_many_ranks():
    grades = np.random.default_rng(0).integers(4, size=(1, 100_000))
    relevant = (grades > 0).astype(int)
    terms = relevant * np.cumsum(grades) / np.arange(1, 100_001)
    for k in (None, 1, 777, 100_000):
        value = weighted_average_precision(np.ones_like(grades), relevant, grades, k)
        max_hits = min(k or 100_000, relevant.sum())
        assert value[0] == pytest.approx(terms[0, :k].sum() / max_hits, rel=1e-11)


def test_one_hot_labels_have_the_metrics_of_class_indices():
    queries, classes, database, database_classes = large_sample()
    multi_hot = queries, np.eye(10, dtype=int)[classes], database, np.eye(10)[database_classes] > 0
    single = evaluate((queries, classes, database, database_classes), ks=(1, 50)).scalars
    scalars = evaluate(multi_hot, ks=(1, 50)).scalars
    added = {f"{name}{cut}" for name in ("ndcg", "weighted_map") for cut in ("", "@1", "@50")}
    assert scalars.keys() - single.keys() == added
    assert {name: scalars[name] for name in single} == single
    for cut in ("", "@1", "@50"):
        assert scalars[f"weighted_map{cut}"] == pytest.approx(single[f"map{cut}"], rel=1e-12)


def test_without_labels_metrics_are_nan():
    queries, _, database, _ = tied_sample(12, "classes", 0)
    scalars = evaluate((queries, np.zeros((4, 3), int), database, np.ones((7, 3), int))).scalars
    for name in ("ndcg", "weighted_map", "ndcg@2", "weighted_map@2"):
        assert np.isnan(scalars[name])


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="k is 0"):
        ndcg(np.array([[7]]), np.array([[1.0]]), np.array([[6, 1]]), 0)
