import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from deephash.hamming import distance_histogram, graded_histogram
from deephash.hamming.codes import pack
from deephash.metrics.average_precision import average_precision as metrics
from deephash.metrics.code_health import code_health
from deephash.metrics.ranking import evaluate_codes

KS = (1, 2, 3, 5, 7)
MEANS = {  # the scalars that are means over the orders of the ties
    "map": ("ap", None), "map@{k}": ("ap", "k"), "map_retrieved@{k}": ("ap_retrieved", "k"),
    "precision@{k}": ("precision", "k"), "recall@{k}": ("recall", "k"),
}  # fmt: skip


def codes_at(distances, bits, rng):
    """Four equal queries and seven items, each at one of some distances from them."""
    query = rng.choice([-1, 1], bits)
    database = np.tile(query, (7, 1))
    for code, distance in zip(database, rng.choice(distances, 7), strict=True):
        code[rng.permutation(bits)[:distance]] *= -1
    return np.tile(query, (4, 1)), database


def tied(bits, labels, seed):
    """Four queries and seven items that lie at one of three distances, so that most tie."""
    rng = np.random.default_rng(seed)
    queries, database = codes_at([1, 2, bits - 1], bits, rng)
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
    return evaluate_codes(*pairs, ks=ks, radius=radius, database_order=True)


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


def graded_figures(grades, k):
    """NDCG and weighted average precision of one order, cut at k, from the definitions."""

    def dcg(grades):
        return sum((2**g - 1) / math.log2(1 + rank) for rank, g in enumerate(grades[:k], 1))

    ranks = [n for n in range(1, k + 1) if grades[n - 1] > 0]
    reachable = min(k, sum(g > 0 for g in grades))
    return {
        "ndcg": dcg(grades) / dcg(sorted(grades, reverse=True)),
        "weighted_map": sum(sum(grades[:n]) / n for n in ranks) / reachable,
    }


def graded(labels, seed, distances):
    """`codes_at`, where items share up to four labels with a query."""
    rng = np.random.default_rng(seed)
    queries, database = codes_at(distances, 12, rng)
    query_labels = np.zeros((4, labels), int)
    for row, count in zip(query_labels, [4, 2, 1, 0], strict=True):
        row[rng.permutation(labels)[:count]] = 1
    return queries, query_labels, database, (rng.random((7, labels)) < 0.5).astype(int)


def grades_of(data):
    return data[1] @ data[3].T


@pytest.mark.parametrize("distances", [(1, 2, 11), (5,), (0, 12)], ids=str)
@pytest.mark.parametrize("labels", [5, 70])
@pytest.mark.parametrize("seed", range(2))
def test_graded_figures_are_their_means_over_all_orders_of_the_ties(labels, seed, distances):
    data = graded(labels, seed, distances)
    distance, _ = pairs_of(*data)
    grades = grades_of(data)
    judged = [i for i in range(4) if grades[i].any()]
    assert 0 < len(judged) < 4, "the case must hold queries of both kinds"
    assert grades.max() >= 2, "the case must hold more than two grades"
    scalars = scalars_of(data).scalars
    expected = {k: {"ndcg": [], "weighted_map": []} for k in KS}
    for i in judged:
        ranked = [grades[i, order].tolist() for order in orders(distance[i])]
        assert len(ranked) > 1
        for k, by_query in expected.items():
            figures_of_orders = [graded_figures(order, k) for order in ranked]
            for name, values in by_query.items():
                values.append(math.fsum(f[name] for f in figures_of_orders) / len(ranked))
    for k, by_query in expected.items():
        for name, values in by_query.items():
            assert scalars[f"{name}@{k}"] == pytest.approx(np.mean(values), abs=1e-12), (name, k)
    for name, values in expected[7].items():
        assert scalars[name] == pytest.approx(np.mean(values), abs=1e-12), name
    assert scalars["queries_without_relevant"] == 4 - len(judged)


@pytest.mark.parametrize("k", [None, 1, 5, 12])
def test_ndcg_without_ties_is_that_of_scikit_learn(k):
    rng = np.random.default_rng(0)
    query_labels = np.ones((1, 5), int)
    database_labels = (rng.random((12, 5)) < 0.4).astype(int)
    distance = rng.permutation(13)[:12]
    database = np.where(np.arange(13) < distance[:, None], -1, 1)
    histogram = graded_histogram(
        pack(np.ones((1, 13))), query_labels, pack(database), database_labels, 13
    )
    assert (histogram.items <= 1).all()
    found = metrics.ndcg(histogram.items, histogram.gains, histogram.by_grade, k)
    true_gains = 2.0 ** database_labels.sum(axis=1)[None] - 1
    assert found[0] == pytest.approx(ndcg_score(true_gains, -distance[None], k=k), abs=1e-12)


def large_graded(seed=0):
    """`large` with eight labels, three of them on average; no query is without any."""
    queries, _, database, _ = large(seed)
    rng = np.random.default_rng(seed)
    query_labels, database_labels = (
        (rng.random((len(codes), 8)) < 0.4).astype(int) for codes in (queries, database)
    )
    query_labels[:, 0] = 1
    return queries, query_labels, database, database_labels


def test_ndcg_of_a_large_database_is_scikit_learns_mean_over_ties():
    data, ks = large_graded(), (1, 10, 100, 2000)
    distance, _ = pairs_of(*data)
    gains = 2.0 ** grades_of(data) - 1
    scalars = scalars_of(data, ks).scalars
    for name, k in [("ndcg", None), *((f"ndcg@{k}", k) for k in ks)]:
        assert scalars[name] == pytest.approx(ndcg_score(gains, -distance, k=k), abs=1e-12)


def test_sampled_orders_of_a_large_graded_database_agree():
    data, ks = large_graded(), (10, 100, 2000)
    distance, grades = pairs_of(*data)[0], grades_of(data)
    scalars = scalars_of(data, ks).scalars
    rng, ranks = np.random.default_rng(1), np.arange(1, 4001)
    samples = {f"weighted_map@{k}": [] for k in ks} | {"weighted_map": []}
    for _ in range(60):
        for i in range(30):
            ranked = grades[i, np.lexsort((rng.random(4000), distance[i]))]
            terms = (ranked > 0) * np.cumsum(ranked) / ranks
            for name, sample in samples.items():
                k = int(name.partition("@")[2] or 4000)
                sample.append(terms[:k].sum() / min(k, np.count_nonzero(ranked)))
    for name, sample in samples.items():
        assert scalars[name] == pytest.approx(np.mean(sample), rel=5e-3), name


def test_weighted_precision_without_ties_keeps_its_digits_over_many_ranks():
    grades = np.random.default_rng(0).integers(4, size=(1, 100_000))
    relevant = (grades > 0).astype(int)
    terms = relevant * np.cumsum(grades) / np.arange(1, 100_001)
    for k in (None, 1, 777, 100_000):
        found = metrics.weighted_average_precision(np.ones_like(grades), relevant, grades, k)
        reachable = min(k or 100_000, relevant.sum())
        assert found[0] == pytest.approx(terms[0, :k].sum() / reachable, rel=1e-11)


def test_one_label_has_the_binary_figures():
    """One class a row: the grades are 0 and 1, and weighted and plain average precision agree."""
    queries, classes, database, database_classes = large()
    multi_hot = queries, np.eye(10, dtype=int)[classes], database, np.eye(10)[database_classes] > 0
    single = scalars_of((queries, classes, database, database_classes), ks=(1, 50)).scalars
    scalars = scalars_of(multi_hot, ks=(1, 50)).scalars
    added = {f"{name}{cut}" for name in ("ndcg", "weighted_map") for cut in ("", "@1", "@50")}
    assert scalars.keys() - single.keys() == added
    assert {name: scalars[name] for name in single} == single
    for cut in ("", "@1", "@50"):
        assert scalars[f"weighted_map{cut}"] == pytest.approx(single[f"map{cut}"], rel=1e-12)


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
    without_labels = scalars_of((queries, np.zeros((4, 3), int), database, np.ones((7, 3), int)))
    for name in ("ndcg", "weighted_map", "ndcg@2", "weighted_map@2"):
        assert np.isnan(without_labels.scalars[name])
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
    with pytest.raises(ValueError, match="k is 0"):
        metrics.ndcg(np.array([[7]]), np.array([[1.0]]), np.array([[6, 1]]), 0)
    with pytest.raises(ValueError, match="radius is 13"):
        scalars_of(data, radius=13)
