import itertools

import numpy as np
import pytest

from deephash import metrics
from deephash.codes import pack
from deephash.hamming import distance_histogram
from deephash.metrics import code_health
from deephash.ranking import evaluate_ranking

KS = (1, 2, 3, 5, 7)
MEANS = {  # the scalars that are means over the orders of the ties
    "map": ("ap", None), "map@{k}": ("ap", "k"), "map_retrieved@{k}": ("ap_retrieved", "k"),
    "precision@{k}": ("precision", "k"), "recall@{k}": ("recall", "k"),
}  # fmt: skip


def tied(bits, labels, seed):
    """Four queries and seven items that lie at one of three distances, so that most tie."""
    rng = np.random.default_rng(seed)
    query = rng.choice([-1, 1], bits)
    database = np.tile(query, (7, 1))
    for code, distance in zip(database, rng.choice([1, 2, bits - 1], 7), strict=True):
        code[rng.permutation(bits)[:distance]] *= -1
    queries = np.tile(query, (4, 1))
    if labels == "classes":
        return queries, np.array([0, 1, 2, 9]), database, rng.integers(3, size=7)
    query_labels = np.zeros((4, labels), int)
    query_labels[[0, 0, 1, 1, 2], [0, labels - 1, 1, 2, labels - 1]] = 1  # the last has no label
    return queries, query_labels, database, (rng.random((7, labels)) < 0.3).astype(int)


def pairs_of(queries, query_labels, database, database_labels):
    distance = (queries[:, None] != database[None]).sum(axis=2)
    if query_labels.ndim == 1:
        return distance, query_labels[:, None] == database_labels[None]
    return distance, (query_labels[:, None] * database_labels[None]).any(axis=2)


def orders(distance):
    """Every ranking by distance, over all orders of the ties."""
    buckets = [np.flatnonzero(distance == d) for d in np.unique(distance)]
    for parts in itertools.product(*map(itertools.permutations, buckets)):
        yield [item for part in parts for item in part]


def figures(ranked, k, total):
    """Average precision and its kin of one order, cut at k, from the definitions."""
    ranked = np.asarray(ranked, float)
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    gain, hits = (precision * ranked)[:k].sum(), ranked[:k].sum()
    return {
        "ap": gain / min(k, total),
        "ap_retrieved": gain / hits if hits else 0.0,
        "precision": hits / k,
        "recall": hits / total,
    }


def scalars_of(data, ks=KS, radius=2):
    queries, query_labels, database, database_labels = data
    bits = queries.shape[1]
    pairs = pack(queries), query_labels, pack(database), database_labels, bits
    return evaluate_ranking(*pairs, ks=ks, radius=radius, database_order=True)


@pytest.mark.parametrize("labels", ["classes", 5, 70])
@pytest.mark.parametrize("bits", [12, 48, 64, 128])
def test_every_figure_is_its_mean_over_all_orders_of_the_ties(bits, labels):
    data = tied(bits, labels, seed=bits)
    distance, relevance = pairs_of(*data)
    judged = [i for i in range(4) if relevance[i].any()]
    assert 0 < len(judged) < 4, "the case must hold queries of both kinds"
    by_query = []
    for i in judged:
        per_order = [
            {k: figures(relevance[i, order], k, relevance[i].sum()) for k in KS}
            for order in orders(distance[i])
        ]
        assert len(per_order) > 1
        by_query.append(per_order)
    scalars = scalars_of(data).scalars

    def over_queries(reduce, k, name):
        return np.mean([reduce([o[k][name] for o in per_order]) for per_order in by_query])

    for pattern, (name, cut) in MEANS.items():
        for k in KS if cut else [7]:
            expected = over_queries(np.mean, k, name)
            assert scalars[pattern.format(k=k)] == pytest.approx(expected, abs=1e-12), (pattern, k)
    assert scalars["map_best"] == pytest.approx(over_queries(max, 7, "ap"), abs=1e-12)
    assert scalars["map_worst"] == pytest.approx(over_queries(min, 7, "ap"), abs=1e-12)
    items, relevant = distance_histogram(
        pack(data[0]), data[1], pack(data[2]), data[3], data[0].shape[1]
    )
    for k in KS:
        best = metrics.average_precision_best(items, relevant, k)[judged].mean()
        worst = metrics.average_precision_worst(items, relevant, k)[judged].mean()
        assert best == pytest.approx(over_queries(max, k, "ap"), abs=1e-12)
        assert worst == pytest.approx(over_queries(min, k, "ap"), abs=1e-12)
    assert scalars["queries_without_relevant"] == 4 - len(judged)


@pytest.mark.parametrize("labels", ["classes", 70])
@pytest.mark.parametrize("seed", range(3))
def test_database_order_and_balls_are_the_naive_ones(labels, seed):
    data = tied(12, labels, seed + 40)
    distance, relevance = pairs_of(*data)
    judged = [i for i in range(4) if relevance[i].any()]
    assert judged
    result = scalars_of(data)
    for k in KS:
        expected = [
            figures(relevance[i, np.argsort(distance[i], kind="stable")], k, relevance[i].sum())
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
        scalars = scalars_of(data, ks=(), radius=radius).scalars
        assert scalars[f"precision_radius{radius}"] == pytest.approx(precision, abs=1e-12)
        assert scalars[f"recall_radius{radius}"] == pytest.approx(recall, abs=1e-12)
        assert scalars[f"empty_balls_radius{radius}"] == np.mean(~ball.any(axis=1))


def large(seed=0, items=4000):
    rng = np.random.default_rng(seed)
    centres = rng.choice([-1, 1], (10, 24))

    def side(count):
        labels = rng.integers(10, size=count)
        return centres[labels] * np.where(rng.random((count, 24)) < 0.25, -1, 1), labels

    return *side(30), *side(items)


def test_sampled_orders_of_a_large_database_agree():
    data, ks = large(), (10, 100, 2000)
    distance, relevance = pairs_of(*data)
    scalars = scalars_of(data, ks).scalars
    rng = np.random.default_rng(1)
    samples = {k: [] for k in (*ks, 4000)}
    for _ in range(60):
        for i in range(30):
            order = np.lexsort((rng.random(4000), distance[i]))
            for k, sample in samples.items():
                sample.append(figures(relevance[i, order], k, relevance[i].sum()))
    for k in ks:
        for name, key in {"map": "ap", "map_retrieved": "ap_retrieved"}.items():
            sampled = np.mean([s[key] for s in samples[k]])
            assert scalars[f"{name}@{k}"] == pytest.approx(sampled, abs=5e-3)
    assert scalars["map"] == pytest.approx(np.mean([s["ap"] for s in samples[4000]]), abs=1e-3)
    assert scalars["map_worst"] < scalars["map"] < scalars["map_best"]
    assert scalars["map_worst"] <= scalars["map_database_order"] <= scalars["map_best"]


def test_each_query_lies_between_its_worst_and_best_order():
    queries, query_labels, database, database_labels = large(seed=3)
    histogram = distance_histogram(pack(queries), query_labels, pack(database), database_labels, 24)
    for k in (None, 1, 50, 3999):
        expected = metrics.average_precision(*histogram, k)
        assert (expected <= metrics.average_precision_best(*histogram, k) + 1e-12).all()
        assert (expected >= metrics.average_precision_worst(*histogram, k) - 1e-12).all()


def test_a_cut_inside_one_huge_tie_keeps_its_digits():
    """All codes equal: precision at every rank is the share of relevant items, about a tenth."""
    items, relevant = np.array([[100_000, 0]]), np.array([[10_000, 0]])
    retrieved = metrics.average_precision_retrieved(items, relevant, 5000)
    rng = np.random.default_rng(0)
    sampled = []
    for _ in range(400):
        ranked = np.zeros(5000)
        ranked[rng.permutation(5000)[: rng.hypergeometric(10_000, 90_000, 5000)]] = 1
        sampled.append(figures(ranked, 5000, 10_000)["ap_retrieved"])
    assert retrieved[0] == pytest.approx(np.mean(sampled), abs=4 * np.std(sampled) / 20)
    assert metrics.precision_at(items, relevant, 5000)[0] == pytest.approx(0.1, abs=1e-15)


def test_no_query_with_relevant_items_gives_nan_and_a_count():
    queries, _, database, database_labels = tied(12, "classes", 0)
    result = scalars_of((queries, np.full(4, 9), database, database_labels))
    assert result.scalars["queries_without_relevant"] == 4
    assert np.isnan(result.scalars["map"])
    assert np.isnan(result.precision).all()


def test_code_health_of_known_codes():
    codes = np.array([[1, 1, 1, 1], [1, 1, -1, 1], [-1, -1, 1, 1], [-1, -1, -1, 1]])
    assert code_health(pack(codes), 4) == pytest.approx(
        {
            "bit_imbalance": 1 / 4,  # only the last bit, which is constant, is not balanced
            "bit_correlation": 1 / 3,  # of three pairs that vary one is a copy
            "constant_bits": 1,
            "distinct_codes": 4,
            "distinct_codes_share": 1,
        }
    )
    collapsed = code_health(pack(np.ones((5, 70))), 70)
    assert collapsed["distinct_codes"] == 1
    assert collapsed["constant_bits"] == 70
    codes = np.sign(np.random.default_rng(0).normal(size=(50, 6)) + 0.3)
    naive = np.abs(np.corrcoef(codes.T)[~np.eye(6, dtype=bool)]).mean()
    assert code_health(pack(codes), 6)["bit_correlation"] == pytest.approx(naive)


def test_errors_name_the_value_and_the_fix():
    data = tied(12, "classes", 0)
    with pytest.raises(ValueError, match=r"ks are \[8\].* 1 to the 7"):
        scalars_of(data, ks=(8,))
    with pytest.raises(ValueError, match="k is 8"):
        metrics.precision_at(np.array([[7]]), np.array([[1]]), 8)
    with pytest.raises(ValueError, match="radius is 13"):
        scalars_of(data, radius=13)
