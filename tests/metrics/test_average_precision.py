import numpy as np
import pytest
from ranking_samples import (
    KS,
    all_orders,
    distances_and_relevance,
    evaluate,
    large_sample,
    metrics_of_order,
    tied_sample,
)

from deephash.hamming import distance_histogram
from deephash.hamming.codes import pack
from deephash.metrics.average_precision import (
    average_precision,
    average_precision_best,
    average_precision_retrieved,
    average_precision_worst,
    precision_at,
)

EXPECTATIONS = {  # scalars that are means over all orders of the ties, and their key of one order
    "map": ("ap", None), "map@{k}": ("ap", "k"), "map_retrieved@{k}": ("ap_retrieved", "k"),
    "precision@{k}": ("precision", "k"), "recall@{k}": ("recall", "k"),
}  # fmt: skip


@pytest.mark.parametrize("labels", ["classes", 5, 70])
@pytest.mark.parametrize("bits", [12, 48, 64, 128])
def test_metrics_are_means_over_all_orders_of_the_ties(bits, labels):
    data = tied_sample(bits, labels, seed=bits)
    distance, relevance = distances_and_relevance(*data)
    judged = [i for i in range(4) if relevance[i].any()]
    assert 0 < len(judged) < 4, "the case must have queries with and without relevant items"
    by_query = []
    for i in judged:
        per_order = [
            {k: metrics_of_order(relevance[i, order], k, relevance[i].sum()) for k in KS}
            for order in all_orders(distance[i])
        ]
        assert len(per_order) > 1
        by_query.append(per_order)
    scalars = evaluate(data).scalars

    def mean_over_queries(reduce, k, name):
        return np.mean([reduce([o[k][name] for o in per_order]) for per_order in by_query])

    for pattern, (name, cut) in EXPECTATIONS.items():
        for k in KS if cut else [7]:
            expected = mean_over_queries(np.mean, k, name)
            assert scalars[pattern.format(k=k)] == pytest.approx(expected, abs=1e-12), (pattern, k)
    assert scalars["map_best"] == pytest.approx(mean_over_queries(max, 7, "ap"), abs=1e-12)
    assert scalars["map_worst"] == pytest.approx(mean_over_queries(min, 7, "ap"), abs=1e-12)
    items, relevant = distance_histogram(
        pack(data[0]), data[1], pack(data[2]), data[3], data[0].shape[1]
    )
    for k in KS:
        best = average_precision_best(items, relevant, k)[judged].mean()
        worst = average_precision_worst(items, relevant, k)[judged].mean()
        assert best == pytest.approx(mean_over_queries(max, k, "ap"), abs=1e-12)
        assert worst == pytest.approx(mean_over_queries(min, k, "ap"), abs=1e-12)
    assert scalars["queries_without_relevant"] == 4 - len(judged)


@pytest.mark.parametrize("labels", ["classes", 70])
@pytest.mark.parametrize("seed", range(3))
def test_database_order_and_radius_metrics_equal_naive_ones(labels, seed):
    data = tied_sample(12, labels, seed + 40)
    distance, relevance = distances_and_relevance(*data)
    judged = [i for i in range(4) if relevance[i].any()]
    assert judged
    result = evaluate(data)
    for k in KS:
        expected = [
            metrics_of_order(
                relevance[i, np.argsort(distance[i], kind="stable")], k, relevance[i].sum()
            )
            for i in judged
        ]
        for name, key in {"map": "ap", "map_retrieved": "ap_retrieved"}.items():
            value = result.scalars[f"{name}_database_order@{k}"]
            assert value == pytest.approx(np.mean([e[key] for e in expected]), abs=1e-12)
    assert result.scalars["map_database_order"] == result.scalars["map_database_order@7"]
    for radius in range(13):
        ball = distance[judged] <= radius
        hits = (ball & relevance[judged]).sum(axis=1)
        precision = (hits / np.maximum(1, ball.sum(axis=1))).mean()
        recall = (hits / relevance[judged].sum(axis=1)).mean()
        assert result.precision[radius] == pytest.approx(precision, abs=1e-12)
        assert result.recall[radius] == pytest.approx(recall, abs=1e-12)
        scalars = evaluate(data, ks=(), radius=radius).scalars
        assert scalars[f"precision_radius{radius}"] == pytest.approx(precision, abs=1e-12)
        assert scalars[f"recall_radius{radius}"] == pytest.approx(recall, abs=1e-12)
        assert scalars[f"empty_balls_radius{radius}"] == np.mean(~ball.any(axis=1))


def test_sampled_orders_of_a_large_database_agree():
    data, ks = large_sample(), (10, 100, 2000)
    distance, relevance = distances_and_relevance(*data)
    scalars = evaluate(data, ks).scalars
    rng = np.random.default_rng(1)
    samples = {k: [] for k in (*ks, 4000)}
    for _ in range(60):
        for i in range(30):
            order = np.lexsort((rng.random(4000), distance[i]))
            for k, values in samples.items():
                values.append(metrics_of_order(relevance[i, order], k, relevance[i].sum()))
    for k in ks:
        for name, key in {"map": "ap", "map_retrieved": "ap_retrieved"}.items():
            mean = np.mean([v[key] for v in samples[k]])
            assert scalars[f"{name}@{k}"] == pytest.approx(mean, abs=5e-3)
    assert scalars["map"] == pytest.approx(np.mean([v["ap"] for v in samples[4000]]), abs=1e-3)
    assert scalars["map_worst"] < scalars["map"] < scalars["map_best"]
    assert scalars["map_worst"] <= scalars["map_database_order"] <= scalars["map_best"]


def test_average_precision_of_each_query_is_between_worst_and_best():
    queries, query_labels, database, database_labels = large_sample(seed=3)
    histogram = distance_histogram(pack(queries), query_labels, pack(database), database_labels, 24)
    for k in (None, 1, 50, 3999):
        expected = average_precision(*histogram, k)
        assert (expected <= average_precision_best(*histogram, k) + 1e-12).all()
        assert (expected >= average_precision_worst(*histogram, k) - 1e-12).all()


def test_cut_inside_a_huge_tie_is_accurate():
    """All codes are equal: precision at every rank is the share of relevant items, a tenth."""
    items, relevant = np.array([[100_000, 0]]), np.array([[10_000, 0]])
    retrieved = average_precision_retrieved(items, relevant, 5000)
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(400):
        ranked = np.zeros(5000)
        ranked[rng.permutation(5000)[: rng.hypergeometric(10_000, 90_000, 5000)]] = 1
        samples.append(metrics_of_order(ranked, 5000, 10_000)["ap_retrieved"])
    assert retrieved[0] == pytest.approx(np.mean(samples), abs=4 * np.std(samples) / 20)
    assert precision_at(items, relevant, 5000)[0] == pytest.approx(0.1, abs=1e-15)


def test_without_relevant_items_metrics_are_nan():
    queries, _, database, database_labels = tied_sample(12, "classes", 0)
    result = evaluate((queries, np.full(4, 9), database, database_labels))
    assert result.scalars["queries_without_relevant"] == 4
    assert np.isnan(result.scalars["map"])
    assert np.isnan(result.precision).all()


def test_errors_name_the_value_and_the_fix():
    data = tied_sample(12, "classes", 0)
    with pytest.raises(ValueError, match=r"ks are \[8\].* 1 to the 7"):
        evaluate(data, ks=(8,))
    with pytest.raises(ValueError, match="k is 8"):
        precision_at(np.array([[7]]), np.array([[1]]), 8)
    with pytest.raises(ValueError, match="radius is 13"):
        evaluate(data, radius=13)
